"""The kernels' code compiled for the host, behind ctypes."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
from dataclasses import astuple, fields
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.reference import Gating

__all__ = ["SOURCES", "compiler", "dispatch", "gating", "library", "padded", "path"]

SOURCES = Path(__file__).parents[2] / "plugins_trt" / "topk_gating"
TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
# Contraction would make products and sums that the code did not write.
FLAGS = ["-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]


class Attributes(ctypes.Structure):
    """``ToolkitGating``."""

    _fields_ = [
        (field.name, ctypes.c_float if field.name == "scale" else ctypes.c_int)
        for field in fields(Gating)
    ]


def compiler() -> str:
    """The C++ compiler; the test is skipped where there is none."""
    found = shutil.which("g++") or shutil.which("c++")
    if found is None:
        pytest.skip("this machine lacks a C++ compiler")
    return found


@functools.cache
def library(folder: Path) -> ctypes.CDLL:
    """The library, compiled into a folder."""
    out = folder / "libtopk_gating_host.so"
    command = [compiler(), *FLAGS, "-Wno-unknown-pragmas", "-fPIC", "-shared", "-o", out]
    done = subprocess.run(
        [*command, SOURCES / "host.cpp"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(out))


def path(lib: ctypes.CDLL, g: Gating) -> int:
    """0 or 1 for a fast path, 2 for the general one, -1 for attributes that cannot be."""
    return lib.toolkit_gating_path(ctypes.byref(Attributes(*astuple(g))))


def gating(
    lib: ctypes.CDLL,
    g: Gating,
    logits: torch.Tensor,
    bias: torch.Tensor | None = None,
    way: int = -1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """weights and ids of logits [T, E]; memory is poisoned before."""
    logits = logits.contiguous()
    weights = torch.full((len(logits), g.k), 12345.0)
    ids = torch.full((len(logits), g.k), -77)
    status = lib.host_gating(
        ctypes.byref(Attributes(*astuple(g))),
        TYPES[logits.dtype],
        _address(logits),
        _address(bias),
        0 if bias is None else TYPES[bias.dtype],
        ctypes.c_int64(len(logits)),
        _address(weights),
        _address(ids),
        way,
    )
    assert status == 0
    return weights, ids


def dispatch(lib: ctypes.CDLL, ids: torch.Tensor, num_experts: int) -> tuple[torch.Tensor, ...]:
    """token_of_row, row_of_slot, offsets and active of ids [T, k]."""
    tokens, k = ids.shape
    rows = [torch.full((tokens * k,), -77) for _ in range(2)]
    offsets = torch.full((num_experts + 1,), -77)
    active = torch.full((num_experts,), 99, dtype=torch.uint8)
    outputs = [*rows, offsets, active]
    status = lib.host_dispatch(
        num_experts,
        k,
        _address(ids.contiguous()),
        ctypes.c_int64(tokens),
        *(_address(output) for output in outputs),
    )
    assert status == 0
    assert set(active.tolist()) <= {0, 1}
    return (*rows, offsets, active.bool())


def padded(lib: ctypes.CDLL, token_of_row: torch.Tensor, offsets: torch.Tensor, capacity: int):
    """The table [E, capacity] of tokens."""
    table = torch.full((len(offsets) - 1, capacity), -77)
    status = lib.host_padded_rows(
        len(offsets) - 1,
        _address(token_of_row),
        _address(offsets),
        ctypes.c_int64(capacity),
        _address(table),
    )
    assert status == 0
    return table


def _address(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
