"""The recipe's settings of engines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from toolkit.engine import (
    LACKING,
    EngineOptions,
    Flavour,
    Hardware,
    Pool,
    Refit,
    Verbosity,
    lacking,
)
from toolkit.errors import RecipeError
from toolkit.recipe.base import RecipeModel, invalid
from toolkit.recipe.problems import Problem, shown
from toolkit.recipe.settings import Range

__all__ = ["EngineSettings", "engine_options", "engine_problems", "size_in_bytes"]

_SIZE = re.compile(r"^\s*(\d+)\s*(B|KiB|MiB|GiB)?\s*$")
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, None: 1}


def _size(value: Any) -> int:
    match = _SIZE.match(str(value)) if type(value) in {int, str} else None
    size = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < size < 2**63:
        raise invalid(f"found {shown(value)}, wanted a size such as 512MiB")
    return size


def size_in_bytes(text: str) -> int:
    """Bytes of ``512MiB``, ``2GiB`` or a plain number.

    Raises:
        RecipeError: If it is none of these.
    """
    try:
        return _size(text)
    except PydanticCustomError as error:
        raise RecipeError(f"found {text!r}, wanted a size such as 512MiB") from error


def _compute_capability(value: Any) -> str:
    # Unquoted, 8.9 is a number in YAML.
    text = repr(value) if type(value) is float else value
    major, _, minor = text.partition(".") if isinstance(text, str) else ("", "", "")
    if not (major.isdecimal() and minor.isdecimal() and len(major) <= 2 and len(minor) == 1):
        raise invalid(f"found {shown(value)}, wanted a compute capability such as 8.9")
    return str(text)


_NUMBER_OR_TEXT = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^\d+\.\d$"}]}
_SIZE_SCHEMA = {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "string", "pattern": r"^\s*\d+\s*(B|KiB|MiB|GiB)?\s*$"},
    ]
}
Capability: TypeAlias = Annotated[
    str, PlainValidator(_compute_capability), WithJsonSchema(_NUMBER_OR_TEXT)
]
Size: TypeAlias = Annotated[int, PlainValidator(_size), WithJsonSchema(_SIZE_SCHEMA)]
Flag: TypeAlias = Annotated[bool, Field(strict=True)]


class EngineSettings(RecipeModel):
    """How the engine is built."""

    compute_capabilities: Annotated[
        tuple[Capability, ...],
        Field(
            description="TensorRT-RTX: GPU architectures, such as 8.9. Default: all that the "
            "builder knows."
        ),
    ] = ()
    profiles: Annotated[
        dict[str, dict[str, Range]],
        Field(
            default_factory=dict,
            description="Optimization profiles by name: ranges within those of shapes.",
        ),
    ]
    memory: Annotated[
        dict[Pool, Size],
        Field(
            default_factory=dict,
            description="Limits of the builder's memory, such as {workspace: 2GiB}.",
        ),
    ]
    optimization_level: Annotated[
        int | None,
        Field(strict=True, ge=0, le=5, description="0 builds fastest, 5 runs fastest."),
    ] = None
    aux_streams: Annotated[
        int | None,
        Field(strict=True, ge=0, description="CUDA streams beside the caller's; 0 is one stream."),
    ] = None
    tf32: Annotated[Flag, Field(description="Let float32 products round their inputs to TF32.")] = (
        False
    )
    sparse: Annotated[
        Flag, Field(description="Use kernels for weights of which two in four are 0.")
    ] = False
    refit: Annotated[
        Refit,
        Field(description="Which weights can replace those in the engine: none, any, identical."),
    ] = "none"
    strip_weights: Annotated[
        Flag, Field(description="Leave refittable weights out of the plan.")
    ] = False
    weight_streaming: Annotated[
        Flag, Field(description="Let a runtime keep weights in the host's memory.")
    ] = False
    version_compatible: Annotated[
        Flag, Field(description="TensorRT: later releases of the same major run the plan.")
    ] = False
    exclude_lean_runtime: Annotated[
        Flag, Field(description="TensorRT: leave the runtime out of a version-compatible plan.")
    ] = False
    hardware_compatibility: Annotated[
        Hardware,
        Field(description="TensorRT: other GPUs that run the engine: ampere_plus, or alike ones."),
    ] = "none"
    profiling_verbosity: Annotated[
        Verbosity | None,
        Field(description="What toolkit inspect can say of the engine. Default: layers' names."),
    ] = None
    plugin: Annotated[
        Literal["none", "aot", "library"],
        Field(
            description="TensorRT: what chooses experts. none: the operators' bodies; aot: kernels "
            "that the engine carries; library: the one that TOOLKIT_PLUGIN_LIBRARY names."
        ),
    ] = "none"
    timing_cache: Annotated[
        Literal["auto", "off"],
        Field(description="TensorRT: auto keeps kernels' timings in the user's cache folder."),
    ] = "auto"
    timing_cache_strict: Annotated[
        Flag, Field(description="TensorRT: build from the timings that are there; write none.")
    ] = False


def engine_problems(settings: Any, target: Any) -> Iterator[Problem]:
    """Settings, raw or validated, that the target does not have."""
    for lack in LACKING:
        found = _said(settings, lack.option)
        if target == lack.flavour and found not in {None, "none", "auto", "off", False, ()}:
            yield Problem(
                ("engine", lack.option), f"found {shown(found)}, but {lack.why}", lack.hint
            )


def _said(settings: Any, key: str) -> Any:
    found = settings.get(key) if isinstance(settings, dict) else getattr(settings, key, None)
    if isinstance(found, list):
        return tuple(map(str, found))
    return found if isinstance(found, (str, bool, tuple)) else None


def engine_options(
    settings: EngineSettings, flavour: Flavour, stated: Mapping[str, Any] | None = None
) -> EngineOptions:
    """The options of a build: the recipe's, and what is stated in place of them.

    Settings that the flavour lacks are left out, so that a bundle made for one can be built for
    the other; stated options are not.

    Raises:
        EngineError: If a stated option is out of its range or the flavour lacks it.
    """
    names = set(type(settings).model_fields) - lacking(flavour)
    said = {name: getattr(settings, name) for name in names}
    return EngineOptions(flavour=flavour, **{**said, **(stated or {})})
