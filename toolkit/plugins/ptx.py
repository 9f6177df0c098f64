"""Kernels with an operator's attributes fixed, as PTX."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.errors import PluginError
from toolkit.plugins.nvrtc import Nvrtc
from toolkit.plugins.sources import SOURCES, headers

__all__ = [
    "AOT_RELEASE",
    "MAX_EXPERTS",
    "MAX_K",
    "Gating",
    "Kernel",
    "dispatch_ptx",
    "gating_defines",
    "gating_ptx",
]

# The first TensorRT that puts PTX into an engine.
AOT_RELEASE = (10, 9)
MAX_EXPERTS, MAX_K = 1024, 32
_FAST_EXPERTS, _FAST_K = 256, 8
_THREADS = 128
# Shared memory that a block has without asking for more.
_SHARED = 48 * 1024
# Of tensors: how the kernels' source calls them, and their number in its enum Type.
_SCALARS = {"float32": ("Float32", 0), "float16": ("Float16", 1), "bfloat16": ("Bfloat16", 2)}


@dataclass(frozen=True)
class Gating:
    """The attributes of ``TopKChoice``, or with ``grouped`` of ``GroupedTopKChoice``.

    Fields stand in the order of ``ToolkitGating`` in ``plugins_trt/topk_gating/config.h``.

    Raises:
        PluginError: If a kernel does not take them.
    """

    num_experts: int
    k: int
    normalize: int = 1
    scale: float = 1.0
    sigmoid: int = 1
    groups: int = 1
    top_groups: int = 1
    group_top: int = 1
    grouped: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.num_experts <= MAX_EXPERTS:
            raise PluginError(
                f"found {self.num_experts} experts; the plugin takes 1 to {MAX_EXPERTS}"
            )
        if not 1 <= self.k <= min(MAX_K, self.num_experts):
            most = min(MAX_K, self.num_experts)
            raise PluginError(f"found k = {self.k}; the plugin takes 1 to {most} of these experts")
        if self.grouped and not self._even_groups():
            raise PluginError(
                f"found groups = {self.groups}, top_groups = {self.top_groups} and group_top = "
                f"{self.group_top} for {self.num_experts} experts; wanted equal groups, and no "
                "more of them, or in one, than there are"
            )

    def _even_groups(self) -> bool:
        return (
            self.groups >= 1
            and self.num_experts % self.groups == 0
            and 1 <= self.top_groups <= self.groups
            and 1 <= self.group_top <= self.num_experts // self.groups
        )

    @property
    def path(self) -> int:
        """Which code runs: 0 and 1 are the fast paths of the two operators, 2 the general one."""
        if self.num_experts > _FAST_EXPERTS or self.k > _FAST_K:
            return 2
        if not self.grouped:
            return 0
        size = self.num_experts // self.groups
        lanes = size // 8
        even = size % 8 == 0 and lanes & (lanes - 1) == 0 and self.group_top <= 2
        return 1 if self.groups == 1 or even else 2

    @property
    def lanes(self) -> int:
        """How many threads share a token on the fast path of the plain operator."""
        return next(lanes for lanes in (1, 2, 4, 8) if self.num_experts <= 32 * lanes)

    def initializer(self) -> str:
        """As C++ writes it."""
        scale = float(self.scale).hex()
        whole = (self.sigmoid, self.groups, self.top_groups, self.group_top, self.grouped)
        first = (self.num_experts, self.k, self.normalize)
        return "{" + ",".join([*map(str, first), f"{scale}f", *map(str, whole)]) + "}"


@dataclass(frozen=True)
class Kernel:
    """PTX, and how it is launched.

    Attributes:
        name: Of the entry.
        ptx: The code.
        threads: Of a block.
        shared: Bytes of shared memory of a block.
        tokens: How many tokens a block takes; 0 where one block takes all.
    """

    name: str
    ptx: bytes
    threads: int
    shared: int
    tokens: int


def gating_ptx(
    nvrtc: Nvrtc, architecture: str, gating: Gating, dtype: str, bias: str | None = None
) -> Kernel:
    """The kernel of a gating: logits of a type, and a bias of a type where it is grouped.

    Args:
        nvrtc: The compiler.
        architecture: Such as ``compute_90``.
        gating: The attributes.
        dtype: Of the logits: ``float32``, ``float16`` or ``bfloat16``.
        bias: Of the bias.

    Raises:
        PluginError: If a type is none of these, or the source does not compile.
    """
    defines = gating_defines(gating, dtype, bias)
    code = nvrtc.compile(_source(), architecture, defines, headers()).code
    if gating.path == 0:
        return Kernel("toolkit_gating", code, _THREADS, 0, _THREADS // gating.lanes)
    warps = 4 if gating.path == 1 or gating.num_experts <= 512 else 2
    shared = warps * gating.num_experts * 12 if gating.path == 2 else 0
    return Kernel("toolkit_gating", code, warps * 32, shared, warps)


def gating_defines(gating: Gating, dtype: str, bias: str | None = None) -> dict[str, str]:
    """The macros that fix a gating in ``aot.cu``.

    Raises:
        PluginError: If a type is none that the kernels read.
    """
    defines = {
        "TOOLKIT_GATING": gating.initializer(),
        "TOOLKIT_PATH": str(gating.path),
        "TOOLKIT_LANES": str(gating.lanes if gating.path == 0 else 32),
        "TOOLKIT_SCALAR": _scalar(dtype)[0],
    }
    if gating.grouped:
        defines["TOOLKIT_BIAS_TYPE"] = str(_scalar(bias or "float32")[1])
    return defines


def dispatch_ptx(nvrtc: Nvrtc, architecture: str, num_experts: int) -> Kernel:
    """The kernel of ``ExpertDispatch``: one block.

    Raises:
        PluginError: If there are more experts than it takes, or the source does not compile.
    """
    if not 1 <= num_experts <= MAX_EXPERTS:
        raise PluginError(f"found {num_experts} experts; the plugin takes 1 to {MAX_EXPERTS}")
    defines = {"TOOLKIT_EXPERTS": str(num_experts)}
    code = nvrtc.compile(_source(), architecture, defines, headers()).code
    warps = min(32, _SHARED // 4 // num_experts - 1)
    return Kernel("toolkit_dispatch", code, warps * 32, (warps + 1) * num_experts * 4, 0)


def _scalar(dtype: str) -> tuple[str, int]:
    if dtype not in _SCALARS:
        raise PluginError(f"found {dtype}; the plugin takes {', '.join(_SCALARS)}")
    return _SCALARS[dtype]


def _source() -> str:
    return (SOURCES / "aot.cu").read_text()
