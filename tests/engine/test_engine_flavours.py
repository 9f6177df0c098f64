"""What differs between TensorRT 10, 11 and RTX, and the words for what they say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import onnx
import pytest
from onnx import helper

from toolkit.engine.diagnosis import builder_message, parser_message, with_origins
from toolkit.engine.messages import Request
from toolkit.engine.network import _network_flags, _ranges
from toolkit.errors import CapabilityError, EngineError


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


# As TensorRT-RTX 1.7.1 and TensorRT write them.
PLACE = " In validate at /_src/optimizer/api/network.cpp:4081"
DRIVER = (
    "\n[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at "
    "/_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient))"
)


TYPES = "n_OutputLayer: IConditionalOutputLayer must have inputs of same type"
SUM = "sum: ElementWiseOperation SUM must have same input types. They are of types Float and Half"
COUNT = "then/else subgraphs should have the same number of outputs"
CALL = "Invalid Node - n\nITensor::getDimensions: Error Code 4: API Usage Error ("


@pytest.mark.parametrize(
    ("desc", "said", "hint"),
    [
        ("Assertion failed: status.is_success(): Found unsupported input type of INT64",
         "Found unsupported input type of INT64", "cast to one of float32"),
        (f'then.output_size() == else.output_size() && "{COUNT}."', COUNT, "both branches"),
        (f"{CALL}{TYPES}.{PLACE}){DRIVER}", TYPES, "both branches"),
        (f"{CALL}{SUM}.{PLACE}){DRIVER}", SUM, "cast to one of float32"),
        ("false", "the parser does not take it", ""),
        ('Assertion failed: mode == "none": ScatterND with reduction is not supported.',
         "ScatterND with reduction is not supported", "toolkit check names"),
    ],
)  # fmt: skip
def test_what_a_parser_says_is_put_in_plain_words(desc: str, said: str, hint: str) -> None:
    error = parser_message([ParserError(desc)])
    assert error.message.endswith(f"node 'n' (Slice): {said}")
    assert hint in error.hint
    assert bool(hint) == bool(error.hint)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("Skipping tactic 0x0 due to insufficient memory", "memory: workspace"),
        ("Could not find any implementation; no implementation obeys", "memory: workspace"),
        ("Cuda Runtime (cudaError 35: old)", "no NVIDIA driver that is new enough"),
        (
            "Error Code 10: Could not find any implementation for node {ForeignNode[a...b]}",
            "too little memory",
        ),
        ("no tactics to implement the operation within workspace limit", "memory: workspace"),
        (
            "MyelinCheckException: graph_jit.cpp:278: CHECK(status == CUDA_SUCCESS) failed",
            "needs an NVIDIA driver for engines that can be refitted",
        ),
        ("Unable to load library: libnvinfer_lean.so.1", "leave version_compatible out"),
        ("Timing cache miss for gemm", "build without --timing-cache-strict"),
        ("Something else", ""),
    ],
)
def test_known_causes_have_a_hint(said: str, hint: str) -> None:
    error = builder_message(f"IBuilder::buildSerializedNetwork: Error Code 2: {said}")
    assert error.message == f"the engine builder failed: {said}"
    assert hint in error.hint
    assert bool(hint) == bool(error.hint)


def test_an_error_says_where_its_nodes_came_from(tmp_path: Path) -> None:
    made = helper.make_node("Relu", ["x"], ["y"], name="a/encoder.layer.1/Relu")
    other = helper.make_node("Relu", ["y"], ["z"], name="a/encoder.layer.1/Relu_2")
    for node, line in ((made, "self.act(x)"), (other, "self.act(y)")):
        for key, value in (
            ("member", "a"), ("module", "encoder.layer.1"), ("source", f"aten.relu: {line}"),
        ):  # fmt: skip
            node.metadata_props.append(onnx.StringStringEntryProto(key=key, value=value))
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in "xz"]
    graph = helper.make_graph([made, other], "g", values[:1], values[1:])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    for text in (
        "Could not find any implementation for node {ForeignNode[q...a/encoder.layer.1/Relu]}",
        "a/encoder.layer.1/Relu_OutputLayer: must have inputs of same type",
    ):
        error = with_origins(EngineError(text, hint="h"), path)
        assert error.message == (
            f"{text}; a/encoder.layer.1/Relu is member a, module encoder.layer.1, "
            "from aten.relu: self.act(x)"
        )
        assert error.hint == "h"
    error = with_origins(EngineError("node a/encoder.layer.1/Relu_2"), path)
    assert error.message.endswith("from aten.relu: self.act(y)")
    untouched = EngineError("node a/encoder.layer.1/Relu_3")
    assert with_origins(untouched, path) is untouched
    assert with_origins(untouched, tmp_path / "absent.onnx") is untouched
