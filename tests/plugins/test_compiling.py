"""The kernels compile for every architecture, and their fast paths spill nothing."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.plugins.host import SOURCES
from tests.tensorrt_stubs.bindings import ROOT
from toolkit.errors import PluginError
from toolkit.plugins import Gating, Nvrtc, dispatch_ptx, find_nvrtc, gating_ptx
from toolkit.plugins.ptx import gating_defines
from toolkit.plugins.sources import headers

ARCHITECTURES = (80, 90, 100, 120)
FAST = [
    Gating(8, 2), Gating(64, 6, normalize=0), Gating(128, 8), Gating(256, 8),
    Gating(256, 8, groups=8, top_groups=4, group_top=2, grouped=1),
    Gating(64, 6, sigmoid=0, grouped=1),
]  # fmt: skip
NOTHING_SPILLED = "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"


@pytest.fixture(scope="module")
def nvrtc() -> Nvrtc:
    found = find_nvrtc(folders=[ROOT / "build" / "nvrtc"])
    if found is None:
        pytest.skip("NVRTC is not installed, in build/nvrtc or elsewhere")
    return found


def functions(log: str) -> dict[str, str]:
    """What ptxas says of each kernel."""
    parts = re.split(r"Compiling entry function '(\w+)'", log)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nvrtc_compiles_the_fast_paths_without_spills(nvrtc, architecture, dtype):
    source = (SOURCES / "aot.cu").read_text()
    for gating in FAST:
        assert gating.path in {0, 1}
        code = nvrtc.compile(
            source,
            f"sm_{architecture}",
            gating_defines(gating, dtype, "float32"),
            headers(),
            ["--ptxas-options=-v"],
        )
        said = functions(code.log)
        assert list(said) == ["toolkit_gating"]
        assert NOTHING_SPILLED in said["toolkit_gating"]
        assert "smem" not in said["toolkit_gating"], "the fast path sorts in registers"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvrtc_gives_ptx_of_every_kernel(nvrtc, architecture):
    kernels = [gating_ptx(nvrtc, f"compute_{architecture}", g, "float16", "float16") for g in FAST]
    kernels.append(gating_ptx(nvrtc, f"compute_{architecture}", Gating(1024, 32), "bfloat16"))
    kernels.append(dispatch_ptx(nvrtc, f"compute_{architecture}", 1024))
    for kernel in kernels:
        ptx = kernel.ptx.decode()
        assert f".target sm_{architecture}" in ptx
        assert f".visible .entry {kernel.name}(" in ptx
        assert kernel.shared <= 48 * 1024
        # An engine's module may hold kernels and nothing that has to be initialised.
        assert not re.search(r"^\s*\.(visible )?\.?global", ptx, re.MULTILINE)


def test_an_architecture_that_is_too_old_is_refused_with_a_reason(nvrtc):
    with pytest.raises(PluginError, match="does not compile the kernels for compute_75"):
        gating_ptx(nvrtc, "compute_75", Gating(64, 6, grouped=1), "float16")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"num_experts": 2048, "k": 2}, "found 2048 experts; the plugin takes 1 to 1024"),
        ({"num_experts": 16, "k": 17}, "found k = 17; the plugin takes 1 to 16 of these experts"),
        ({"num_experts": 16, "k": 2, "groups": 3, "grouped": 1}, "found groups = 3, top_groups"),
    ],
)
def test_attributes_that_no_kernel_takes_are_refused(attributes, message):
    with pytest.raises(PluginError, match=message):
        Gating(**attributes)


def test_a_type_that_no_kernel_takes_is_refused(nvrtc):
    with pytest.raises(PluginError, match="found int64; the plugin takes float32, float16, bflo"):
        gating_ptx(nvrtc, "compute_90", Gating(8, 2), "int64")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvcc_compiles_all_kernels_and_the_fast_paths_spill_nothing(tmp_path, architecture):
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("this machine lacks nvcc")
    target = f"-gencode=arch=compute_{architecture},code=sm_{architecture}"
    command = [nvcc, "-std=c++17", "--fmad=false", "-Xptxas", "-v", target]
    done = subprocess.run(
        [*command, "-c", SOURCES / "kernel.cu", "-o", tmp_path / "kernel.o"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    fast = {"gate_fast_kernel": 0, "gate_grouped_kernel": 0}
    entries = re.split(r"Compiling entry function '", done.stderr)[1:]
    for entry in entries:
        name, _, said = entry.partition("'")
        kind = next((kind for kind in fast if kind in name), None)
        if kind is not None:
            fast[kind] += 1
            assert NOTHING_SPILLED in said, name
            assert "smem" not in said, name
    # Three types by four numbers of lanes by two ways to normalise; three types.
    assert fast == {"gate_fast_kernel": 24, "gate_grouped_kernel": 3}
