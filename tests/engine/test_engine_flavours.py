"""What differs between TensorRT 10, 11 and RTX, and the words for what they say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from toolkit.engine.diagnosis import builder_message, parser_message
from toolkit.engine.messages import Request
from toolkit.engine.network import _network_flags, _ranges
from toolkit.errors import CapabilityError


def flags(version: str, flavour: str = "tensorrt", bit: int = 1) -> int:
    trt: Any = SimpleNamespace(
        __version__=version, NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=bit)
    )
    return _network_flags(trt, cast("Request", {"flavour": flavour, "plugin": "none"}))


def test_strong_typing_is_asked_for_by_name_where_it_is_not_the_rule() -> None:
    assert flags("10.8.0.43", bit=1) == 2
    assert flags("10.16.1", bit=3) == 8
    assert flags("11.4.0.106", bit=0) == 0
    assert flags("1.7.1.116", "tensorrt-rtx") == 0


@pytest.mark.parametrize("version", ["10.7.0", "8.6.1", "12.0.0"])
def test_other_releases_are_refused_by_number(version: str) -> None:
    with pytest.raises(CapabilityError, match=f"TensorRT {version} is not supported; wanted 10.8"):
        flags(version)


def test_a_profile_has_the_least_the_usual_and_the_largest_shape() -> None:
    names = {0: "batch", 2: "sequence"}
    tensor = SimpleNamespace(
        name="x",
        shape=(-1, 8, -1),
        dtype=SimpleNamespace(name="FLOAT"),
        get_dimension_name=lambda axis: names[axis],
    )
    shapes = {"batch": (1, 4, 16), "sequence": (2, 128, 512)}
    assert _ranges(tensor, shapes) == ((1, 8, 2), (4, 8, 128), (16, 8, 512))


class ParserError(SimpleNamespace):
    """Has the methods of ``trt.IParserError`` that are used."""

    def __init__(
        self, desc: str, name: str = "n", op: str = "Slice", stack: list[str] | None = None
    ):
        super().__init__(
            desc=lambda: desc,
            node_name=lambda: name,
            node_operator=lambda: op,
            local_function_stack=lambda: stack or [],
        )


def test_the_assertion_is_left_out_and_the_function_named() -> None:
    desc = "Assertion failed: (starts.size() == axes.size()): The shape of starts is wrong."
    error = parser_message([ParserError(desc, stack=["LinearInterpolation"])])
    assert error.message.endswith(
        "node 'n' (Slice) in function LinearInterpolation: The shape of starts is wrong"
    )


def test_many_parser_errors_are_counted() -> None:
    error = parser_message([ParserError(f"reason {index}") for index in range(5)])
    assert "reason 2; and 2 more" in error.message
    assert "reason 3" not in error.message


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("Skipping tactic 0x0 due to insufficient memory", "memory: workspace"),
        ("Could not find any implementation; no implementation obeys", "memory: workspace"),
        ("Cuda Runtime (cudaError 35: old)", "no NVIDIA driver that is new enough"),
        ("Something else", ""),
    ],
)
def test_known_causes_have_a_hint(said: str, hint: str) -> None:
    error = builder_message(f"IBuilder::buildSerializedNetwork: Error Code 2: {said}")
    assert error.message == f"the engine builder failed: {said}"
    assert hint in error.hint
    assert bool(hint) == bool(error.hint)
