"""The kernels on this machine's GPU: as a library that nvcc builds, and as the PTX of an engine."""

from __future__ import annotations

import ctypes
import subprocess
from dataclasses import astuple, fields
from pathlib import Path

import torch

from benchmarks.gpu.reference import Gating
from toolkit.plugins import SOURCES, dispatch_ptx, find_nvrtc, gating_ptx
from toolkit.plugins import Gating as Attributes
from toolkit.plugins.nvrtc import driver_version
from toolkit.plugins.ptx import Kernel

__all__ = ["Dispatched", "Library", "Outputs", "Ptx", "poisoned"]

TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
NAMES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
FOLDER = Path(__file__).parents[2] / "build" / "topk_gating_gpu"

Outputs = tuple[torch.Tensor, torch.Tensor]
"""weights and ids."""
Dispatched = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""token_of_row, row_of_slot, offsets and active."""


class _Struct(ctypes.Structure):
    _fields_ = [
        (field.name, ctypes.c_float if field.name == "scale" else ctypes.c_int)
        for field in fields(Gating)
    ]


def poisoned(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    """Memory that holds what no kernel writes, so that what is left out shows."""
    if dtype == torch.float32:
        return torch.full(shape, 12345.0, device="cuda")
    return torch.full(shape, 77 if dtype == torch.uint8 else -77, dtype=dtype, device="cuda")


class Library:
    """``kernel.cu`` compiled for this GPU by nvcc, behind ctypes."""

    name = "library"

    def __init__(self) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        out = FOLDER / "libtopk_gating.so"
        major, minor = torch.cuda.get_device_capability()
        command = ["nvcc", "-std=c++17", "-O3", "--fmad=false", f"-arch=sm_{major}{minor}",
                   "-lineinfo", "-Xcompiler", "-fPIC", "-shared"]  # fmt: skip
        subprocess.run([*command, "-o", out, SOURCES / "kernel.cu"], check=True)
        self._library = ctypes.CDLL(str(out))
        self._library.toolkit_dispatch_workspace.restype = ctypes.c_size_t

    def gating(
        self,
        g: Gating,
        logits: torch.Tensor,
        bias: torch.Tensor | None = None,
        out: Outputs | None = None,
    ) -> Outputs:
        """Weights and ids of logits [T, E]."""
        weights, ids = out or _gating_outputs(g, logits)
        status = self._library.toolkit_gating(
            ctypes.byref(_Struct(*astuple(g))),
            TYPES[logits.dtype],
            _address(logits),
            _address(bias),
            0 if bias is None else TYPES[bias.dtype],
            ctypes.c_int64(len(logits)),
            _address(weights),
            _address(ids),
            _stream(),
        )
        assert status == 0, f"toolkit_gating gave {status}"
        return weights, ids

    def dispatch(
        self, ids: torch.Tensor, experts: int, out: tuple[torch.Tensor, ...] | None = None
    ) -> Dispatched:
        """The dispatch of ids [T, k]."""
        rows, places, offsets, active, workspace = out or self.dispatch_outputs(ids, experts)
        status = self._library.toolkit_dispatch(
            experts,
            ids.shape[1],
            _address(ids),
            ctypes.c_int64(len(ids)),
            *map(_address, (rows, places, offsets, active, workspace)),
            _stream(),
        )
        assert status == 0, f"toolkit_dispatch gave {status}"
        return rows, places, offsets, active

    def dispatch_outputs(self, ids: torch.Tensor, experts: int) -> tuple[torch.Tensor, ...]:
        """Poisoned outputs, and the workspace."""
        size = self._library.toolkit_dispatch_workspace(experts, ctypes.c_int64(ids.numel()))
        workspace = poisoned(max(int(size), 1), dtype=torch.uint8)
        return (*_dispatch_outputs(ids, experts), workspace)


class Ptx:
    """The kernels that ``plugin: aot`` puts into an engine, launched through the driver."""

    name = "PTX"

    def __init__(self) -> None:
        found = find_nvrtc(driver_version())
        assert found is not None, "no NVRTC that this driver takes; see toolkit doctor"
        self._nvrtc = found
        major, minor = torch.cuda.get_device_capability()
        self._architecture = f"compute_{major}{minor}"
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._entries: dict[object, tuple[Kernel, ctypes.c_void_p]] = {}

    def gating(self, g: Gating, logits: torch.Tensor, bias: torch.Tensor | None = None) -> Outputs:
        """Weights and ids of logits [T, E]."""
        weights, ids = _gating_outputs(g, logits)
        key = (g, logits.dtype, None if bias is None else bias.dtype)
        if key not in self._entries:
            kernel = gating_ptx(
                self._nvrtc,
                self._architecture,
                Attributes(*astuple(g)),
                NAMES[logits.dtype],
                None if bias is None else NAMES[bias.dtype],
            )
            self._entries[key] = kernel, self._load(kernel)
        inputs = [logits] if bias is None else [logits, bias]
        sizes = [ctypes.c_int(len(logits))]
        blocks = -(-max(len(logits), 1) // self._entries[key][0].tokens)
        self._launch(
            key, blocks, [*map(_address, inputs), *sizes, _address(weights), _address(ids)]
        )
        return weights, ids

    def dispatch(self, ids: torch.Tensor, experts: int) -> Dispatched:
        """The dispatch of ids [T, k]."""
        if experts not in self._entries:
            kernel = dispatch_ptx(self._nvrtc, self._architecture, experts)
            self._entries[experts] = kernel, self._load(kernel)
        outputs = _dispatch_outputs(ids, experts)
        sizes = [ctypes.c_int(len(ids)), ctypes.c_int(ids.shape[1])]
        self._launch(experts, 1, [_address(ids), *sizes, *map(_address, outputs)])
        return outputs

    def _load(self, kernel: Kernel) -> ctypes.c_void_p:
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self._check(self._driver.cuModuleLoadData(ctypes.byref(module), kernel.ptx + b"\0"))
        self._check(
            self._driver.cuModuleGetFunction(ctypes.byref(function), module, kernel.name.encode())
        )
        return function

    def _launch(self, key: object, blocks: int, arguments: list[ctypes._SimpleCData]) -> None:
        kernel, function = self._entries[key]
        pointers = (ctypes.c_void_p * len(arguments))(
            *(ctypes.cast(ctypes.byref(each), ctypes.c_void_p) for each in arguments)
        )
        self._check(
            self._driver.cuLaunchKernel(
                function,
                blocks,
                1,
                1,
                kernel.threads,
                1,
                1,
                kernel.shared,
                _stream(),
                pointers,
                None,
            )
        )

    def _check(self, status: int) -> None:
        assert status == 0, f"the CUDA driver gave {status}"


def _gating_outputs(g: Gating, logits: torch.Tensor) -> Outputs:
    shape = (len(logits), g.k)
    return poisoned(*shape, dtype=torch.float32), poisoned(*shape, dtype=torch.int64)


def _dispatch_outputs(ids: torch.Tensor, experts: int) -> Dispatched:
    return (
        poisoned(ids.numel(), dtype=torch.int64),
        poisoned(ids.numel(), dtype=torch.int64),
        poisoned(experts + 1, dtype=torch.int64),
        poisoned(experts, dtype=torch.uint8),
    )


def _address(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _stream() -> ctypes.c_void_p:
    return ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
