"""What TensorRT's engine inspector says, in its JSON of any release and verbosity.

With ``profiling_verbosity: detailed`` layers are objects, otherwise names. TensorRT 10 calls the
inputs and outputs ``Bindings`` and writes format and type into one text, TensorRT 11 calls them
``I/O Tensors`` and has the type apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.errors import EngineError

__all__ = ["EngineLayer", "read_information"]

_SPELLINGS = {
    r"\bBF16\b|BFloat16": "bfloat16", r"\bFP32\b|\bFloat\b": "float32",
    r"\bFP16\b|\bHalf\b": "float16", r"\bFP8\b": "fp8", r"\bFP4\b": "fp4", r"Int64": "int64",
    r"Int32": "int32", r"U[Ii]nt8": "uint8", r"Int8|\bINT8\b": "int8", r"Int4": "int4",
    r"Bool": "bool",
}  # fmt: skip


@dataclass(frozen=True)
class EngineLayer:
    """A layer of an engine, which may stand for many of the graph.

    Attributes:
        name: Its name; names of fused layers are joined by ``+``.
        kind: TensorRT's name of its type; empty where only names are kept.
        dtypes: Types of its outputs, each once; empty likewise.
        tactic: The kernel; empty likewise.
    """

    name: str
    kind: str = ""
    dtypes: tuple[str, ...] = ()
    tactic: str = ""


def read_information(text: str) -> tuple[EngineLayer, ...]:
    """The layers in the order they run.

    Raises:
        EngineError: If the text is none of the forms.
    """
    try:
        found = json.loads(text)
        layers = found["Layers"]
        if not isinstance(layers, list):
            raise TypeError
        return tuple(_layer(each) for each in layers)
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(
            "the engine inspector's answer is of a form that is not known here",
            hint="--json of toolkit inspect has what else can be read",
        ) from error


def _layer(said: str | Mapping[str, Any]) -> EngineLayer:
    if isinstance(said, str):
        return EngineLayer(said)
    return EngineLayer(
        name=str(said["Name"]),
        kind=str(said.get("LayerType", "")),
        dtypes=tuple(dict.fromkeys(_dtypes(said.get("Outputs", ())))),
        tactic=str(said.get("TacticName", "")),
    )


def _dtypes(tensors: Any) -> Iterator[str]:
    for tensor in tensors:
        for key in ("Format/Datatype", "DataType", "Datatype"):
            if key in tensor:
                yield _spelled(str(tensor[key]))


def _spelled(text: str) -> str:
    for pattern, name in _SPELLINGS.items():
        if re.search(pattern, text):
            return name
    return text.lower()
