"""Widening and rounding of tensor elements inside compiled loops.

bfloat16 has no NumPy dtype, so its elements travel as ``uint16`` bit patterns. ``widen`` and
``narrow`` are the only two places that know this; kernels are written once, for any element type.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

__all__ = ["bits_float", "compiled", "float_bits", "is_finite", "narrow", "widen"]

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile to machine code on first call, cached on disk, running without the interpreter lock.

    The compiler gets no freedom with floating-point arithmetic: sums keep their order and products
    are not fused with sums, so the result is that of the same steps in NumPy's float64.
    """
    options = {"nogil": True, "cache": True, "error_model": "numpy"}
    return cast(Function, numba.njit(**options)(function))


def _bitcast(source: Any, target: Any, llvm: ir.Type) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], llvm)

    return target(source), generate


def _float_from_bits(_context: Any, bits: Any) -> Any:
    return _bitcast(bits, types.float32, ir.FloatType())


def _bits_from_float(_context: Any, value: Any) -> Any:
    return _bitcast(value, types.uint32, ir.IntType(32))


bits_float = intrinsic(_float_from_bits)
float_bits = intrinsic(_bits_from_float)


def widen(element: Any) -> Any:
    """The value of one stored element: bfloat16 bits to float32, floats unchanged."""
    if isinstance(element, np.uint16):
        return np.float32(struct.unpack("<f", struct.pack("<I", int(element) << 16))[0])
    return element


@overload(widen)  # type: ignore[untyped-decorator]
def _widen(element: Any) -> Any:
    return _widen_bfloat16 if element == types.uint16 else _widen_float


# numba wants the implementation's signature, annotations included, to equal the typing function's.
def _widen_bfloat16(element: Any) -> Any:
    return bits_float(np.uint32(np.uint32(element) << np.uint32(16)))


def _widen_float(element: Any) -> Any:
    return element


def is_finite(element: Any) -> bool:
    """Whether a stored element is neither NaN nor infinite."""
    return bool(abs(float(widen(element))) < np.inf)


@overload(is_finite)  # type: ignore[untyped-decorator]
def _is_finite(element: Any) -> Any:
    return _is_finite_bfloat16 if element == types.uint16 else _is_finite_float


def _is_finite_bfloat16(element: Any) -> Any:
    # On the bits: thirty-two elements at a time instead of eight.
    return np.uint16(element & np.uint16(0x7F80)) != np.uint16(0x7F80)


def _is_finite_float(element: Any) -> Any:
    return abs(element) < np.inf


def narrow(out: Any, index: int, value: float) -> None:
    """Store a float64 value into ``out``, rounded once to nearest-even in ``out``'s format."""
    out[index] = value


@overload(narrow)  # type: ignore[untyped-decorator]
def _narrow(out: Any, index: Any, value: Any) -> Any:  # noqa: ARG001
    if out.dtype == types.uint16:
        return _narrow_bfloat16
    if out.dtype == types.float32:
        return _narrow_float32
    return _narrow_float64


def _narrow_bfloat16(out: Any, index: Any, value: Any) -> Any:
    # float64 -> float32 -> bfloat16 would round twice. It matters only where the float32 lands
    # exactly between two bfloat16 values: one bit on the side of the lost remainder decides there.
    single = np.float32(value)
    bits = float_bits(single)
    middle = np.uint32(bits & np.uint32(0xFFFF)) == np.uint32(0x8000)
    above = np.uint32(middle and abs(value) > abs(np.float64(single)))
    below = np.uint32(middle and abs(value) < abs(np.float64(single)))
    bits = np.uint32(bits + above - below)
    odd = np.uint32((bits >> np.uint32(16)) & np.uint32(1))
    out[index] = np.uint16(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


def _narrow_float32(out: Any, index: Any, value: Any) -> Any:
    out[index] = np.float32(value)


def _narrow_float64(out: Any, index: Any, value: Any) -> Any:
    out[index] = value
