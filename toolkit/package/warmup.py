"""Requests a server answers before it says that it is ready: valid inputs, drawn from the seed."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.artifacts import Shapes, TensorSpec
from toolkit.feeds import make_feeds
from toolkit.package.interface import Interface

__all__ = ["FOLDER", "WarmupInput", "warmup_inputs"]

FOLDER = "warmup"  # where Triton looks for the files, below the model's folder

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class WarmupInput:
    """One input of a warm-up request.

    Attributes:
        name: The input's.
        dtype: Triton's name.
        dims: The shape, without the batch where there is one.
        file: The name of its file.
        data: The bytes of one row, or of the whole tensor where there is no batch.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]
    file: str
    data: bytes


def warmup_inputs(
    interface: Interface, inputs: Sequence[TensorSpec], shapes: Shapes, seed: int
) -> tuple[WarmupInput, ...]:
    """Inputs of the usual size, one row each where there is a batch.

    Token ids are drawn within the vocabulary and masks are 1, which Triton's own random data
    would not be. A cache is not empty.
    """
    dims = {name: max(span.opt, min(span.max, 1)) for name, span in shapes.items()}
    if interface.batch:
        dims[interface.batch] = 1
    rng = np.random.default_rng((seed, zlib.crc32(b"warmup")))
    feeds = make_feeds(inputs, dims, rng, "full")
    skipped = 1 if interface.batch else 0
    files = _files([tensor.name for tensor in interface.inputs])
    return tuple(
        WarmupInput(
            tensor.name,
            tensor.dtype,
            feeds[tensor.name].shape[skipped:] or (1,),
            files[tensor.name],
            np.ascontiguousarray(feeds[tensor.name]).tobytes(),
        )
        for tensor in interface.inputs
    )


def _files(names: Sequence[str]) -> Mapping[str, str]:
    return {name: f"{index}_{_UNSAFE.sub('_', name)}" for index, name in enumerate(names)}
