"""The plan of a merge: every output tensor, what it is made from and how, from headers alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from toolkit.merge.methods.base import Method
from toolkit.merge.models import Model
from toolkit.merge.operands import CHUNK_BYTES
from toolkit.merge.tensors import STORED, Tensor, elements

__all__ = ["MergePlan", "OutputTensor", "Source"]

# Measured on one core: nanoseconds per element and model, reading included; see docs/merging.md.
_COST = {
    "linear": 0.6, "uniform_soup": 0.6, "wise_ft": 0.6, "passthrough": 0.8, "slerp": 1.4,
    "task_arithmetic": 0.7, "ties": 4.0, "dare_ties": 2.2, "dare_linear": 2.0, "moe": 0.8,
}  # fmt: skip
_OTHER_COST = 12.0
_START_SECONDS = 0.9


@dataclass(frozen=True)
class Source:
    """One input of one output: whose, under which name, and where its elements are."""

    model: str
    name: str
    tensor: Tensor = field(repr=False)


@dataclass(frozen=True)
class OutputTensor:
    """One tensor to be written.

    Attributes:
        name: Its name in the output.
        dtype: safetensors name of its element format.
        shape: Sizes.
        sources: Operands, the base first where the method has one.
        method: What to do with them.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    sources: tuple[Source, ...]
    method: Method

    @property
    def nbytes(self) -> int:
        """Bytes in the output."""
        return elements(self.shape) * int(np.dtype(STORED[self.dtype]).itemsize)

    @property
    def nbytes_read(self) -> int:
        """Bytes of input, each counted once."""
        return sum(
            elements(source.tensor.shape) * int(np.dtype(STORED[source.tensor.dtype]).itemsize)
            for source in self.sources
        )


@dataclass(frozen=True)
class MergePlan:
    """What a merge will do.

    Attributes:
        method: ``merge_method``.
        outputs: Tensors in the order they will be written.
        unused: Input tensors that go nowhere, as (model, tensor, reason): none is dropped silently.
        donor: The model that config and tokenizer come from.
        models: All models by reference.
        config: ``config.json`` of the output.
        warnings: What a reader should know and need not act on.
        files: Text files to write beside the weights, by name: a tokenizer that was made anew.
        chat_template: Text of the chat template to set; empty to leave the tokenizer's own.
    """

    method: str
    outputs: tuple[OutputTensor, ...]
    unused: tuple[tuple[str, str, str], ...]
    donor: Model
    models: Mapping[str, Model]
    config: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    chat_template: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of all output tensors."""
        return sum(output.nbytes for output in self.outputs)

    @property
    def nbytes_read(self) -> int:
        """Bytes of input that are needed."""
        return sum(output.nbytes_read for output in self.outputs)

    def memory(self, threads: int) -> int:
        """A bound on buffers, in bytes: rows, what they are read into, masks and results."""
        return threads * 4 * CHUNK_BYTES

    def seconds(self, threads: int) -> float:
        """An estimate of the time with inputs in the page cache; a cold disk adds its own."""
        cost = _COST.get(self.method, _OTHER_COST)
        count = sum(elements(o.shape) * len(o.sources) for o in self.outputs)
        return _START_SECONDS + cost * 1e-9 * count / threads

    def shards(self, limit: int) -> Iterator[Sequence[OutputTensor]]:
        """Outputs by file: as many as fit into ``limit`` bytes, at least one."""
        shard: list[OutputTensor] = []
        size = 0
        for output in self.outputs:
            if shard and size + output.nbytes > limit:
                yield shard
                shard, size = [], 0
            shard.append(output)
            size += output.nbytes
        if shard:
            yield shard

    def to_json(self, threads: int = 1) -> dict[str, Any]:
        """The plan as JSON values, every input tensor accounted for."""
        return {
            "method": self.method,
            "tensors": len(self.outputs),
            "bytes_read": self.nbytes_read,
            "bytes_written": self.nbytes,
            "memory_bound": self.memory(threads),
            "estimated_seconds": round(self.seconds(threads), 1),
            "warnings": list(self.warnings),
            "outputs": [_told(output) for output in self.outputs],
            "unused": [
                {"model": model, "tensor": name, "reason": reason}
                for model, name, reason in self.unused
            ],
        }


def _told(output: OutputTensor) -> dict[str, Any]:
    return {
        "tensor": output.name,
        "dtype": output.dtype,
        "shape": list(output.shape),
        "sources": [{"model": s.model, "tensor": s.name} for s in output.sources],
        "method": repr(output.method),
    }
