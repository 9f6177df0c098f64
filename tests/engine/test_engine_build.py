"""Engines from a real TensorRT-RTX builder, which needs no GPU."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import graphs
from toolkit.artifacts import DimRange, OnnxModel, TensorSpec
from toolkit.engine import EngineOptions, build_engine
from toolkit.engine.choices import SWITCHES
from toolkit.engine.configuring import configure
from toolkit.engine.requirements import device_capability
from toolkit.errors import EngineError

pytestmark = pytest.mark.rtx

BATCH = {"batch": DimRange(1, 4, 16)}
RTX = EngineOptions()


def value(name: str, *shape: int | str | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def ints(name: str, values: list[int] | int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=np.int64), name)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    output: onnx.ValueInfoProto,
    constants: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "graph", inputs, [output], constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("elsewhere", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def mlp(*batch: int | str | None) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = {"first": rng.standard_normal((8, 16)), "second": rng.standard_normal((16, 3))}
    return model(
        [
            helper.make_node("MatMul", ["x", "first"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("MatMul", ["active", "second"], ["y"]),
        ],
        [value("x", *batch, 8)],
        value("y", *batch, 3),
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )


def slice_in_if() -> onnx.ModelProto:
    """Rows of ``x`` up to a count that depends on its values, sliced inside an If."""

    def branch(prefix: str) -> onnx.GraphProto:
        start, axis, out = prefix + "start", prefix + "axis", prefix + "out"
        node = helper.make_node("Slice", ["x", start, "count", axis], [out])
        return helper.make_graph(
            [node], prefix, [], [value(out, "rows", 8)], [ints(start, [0]), ints(axis, [0])]
        )

    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["positive"]),
        helper.make_node("Cast", ["positive"], ["ones"], to=TensorProto.INT64),
        helper.make_node("ReduceSum", ["ones", "axes"], ["total"], keepdims=0),
        helper.make_node("Reshape", ["total", "one"], ["count"]),
        helper.make_node("Greater", ["total", "none"], ["any"]),
        helper.make_node(
            "If", ["any"], ["y"], then_branch=branch("then_"), else_branch=branch("else_")
        ),
    ]
    zero = numpy_helper.from_array(np.float32(0), "zero")
    constants = [zero, ints("axes", [0, 1]), ints("one", [1]), ints("none", 0)]
    return model(nodes, [value("x", "batch", 8)], value("y", "rows", 8), constants)


def built(onnx_model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(onnx_model, path)
    return path


def failure(onnx_model: onnx.ModelProto, folder: Path, options: EngineOptions = RTX) -> EngineError:
    """The error of a build that must fail and leave nothing behind."""
    path = built(onnx_model, folder)
    with pytest.raises(EngineError) as caught:
        build_engine(path, BATCH, options, folder / "model.plan")
    assert [entry.name for entry in folder.iterdir()] == ["model.onnx"]
    return caught.value


def test_dynamic_batch_builds_and_reads_the_network_back(tmp_path: Path) -> None:
    plan = tmp_path / "model.plan"
    engine = build_engine(built(mlp("batch"), tmp_path), BATCH, RTX, plan)
    assert plan.stat().st_size > 1000
    assert plan.read_bytes().startswith(b"vtrt")
    assert engine.path == plan
    assert engine.flavour == "tensorrt-rtx"
    assert engine.inputs == (TensorSpec("x", "float32", ("batch", 8)),)
    assert engine.outputs == (TensorSpec("y", "float32", ("y_0", 3)),)
    assert engine.layers == 5  # two constants, two products, one activation
    assert engine.compute_capabilities == ()
    assert int(engine.version.split(".")[0]) >= 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.onnx", "model.plan"]


def test_fixed_shapes_need_no_ranges(tmp_path: Path) -> None:
    engine = build_engine(built(mlp(2), tmp_path), {}, RTX, tmp_path / "model.plan")
    assert engine.inputs == (TensorSpec("x", "float32", (2, 8)),)


def test_an_onnx_model_is_taken_as_well_as_a_path(tmp_path: Path) -> None:
    path = built(mlp(2), tmp_path)
    engine = build_engine(OnnxModel(path, (), (), 20), {}, RTX, tmp_path / "model.plan")
    assert engine.path.is_file()


def test_external_data_is_found_beside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(mlp("batch"), path, save_as_external_data=True, location="model.onnx.data",
              size_threshold=0)  # fmt: skip
    monkeypatch.chdir(tmp_path)
    build_engine(Path("model.onnx"), BATCH, RTX, Path("model.plan"))
    assert (tmp_path / "model.plan").is_file()


def test_named_architectures_are_built_for(tmp_path: Path) -> None:
    options = EngineOptions(
        compute_capabilities=("8.9", "12.0"), memory={"workspace": 1 << 28}, optimization_level=1
    )
    engine = build_engine(built(mlp("batch"), tmp_path), BATCH, options, tmp_path / "model.plan")
    assert engine.compute_capabilities == ("8.9", "12.0")


def test_progress_reports_phases_and_the_log_goes_to_logging(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[str, int, int]] = []
    path = built(mlp("batch"), tmp_path)
    with caplog.at_level(logging.DEBUG, "toolkit.engine"):
        build_engine(path, BATCH, RTX, tmp_path / "model.plan", lambda *step: seen.append(step))
    assert seen[0][:2] == ("Building engine", 0)
    assert all(0 <= done <= steps for _, done, steps in seen)
    assert any(done == steps > 0 for _, done, steps in seen)
    assert any("Opset version" in line for line in caplog.messages)
    assert capfd.readouterr() == ("", "")


def test_an_older_plan_is_replaced_only_by_a_finished_one(tmp_path: Path) -> None:
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"older")
    with pytest.raises(EngineError):
        build_engine(built(mlp("sequence"), tmp_path), BATCH, RTX, plan)
    assert plan.read_bytes() == b"older"
    build_engine(built(mlp("batch"), tmp_path), BATCH, RTX, plan)
    assert plan.read_bytes().startswith(b"vtrt")


def test_an_unknown_operator_is_named_with_its_node(tmp_path: Path) -> None:
    node = helper.make_node("NoSuchOp", ["x"], ["y"], name="the_node", domain="elsewhere")
    error = failure(model([node], [value("x", "batch", 8)], value("y", "batch", 8)), tmp_path)
    assert error.message == (
        "the engine builder cannot use this ONNX file: node 'the_node' (NoSuchOp): "
        "Plugin not found, are the plugin name, version, and namespace correct?"
    )
    assert "neither a standard one nor a function of the model" in error.hint


def test_bytes_that_are_no_onnx_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a protobuf at all")
    with pytest.raises(EngineError, match="cannot use this ONNX file"):
        build_engine(tmp_path / "model.onnx", {}, RTX, tmp_path / "model.plan")


def test_a_dimension_without_a_range_is_named(tmp_path: Path) -> None:
    error = failure(mlp("sequence"), tmp_path)
    assert error.message == (
        "input 'x' has the symbolic dimension 'sequence', which has no range "
        "(ranges are given for: batch)"
    )
    assert error.hint == "add `sequence: [min, opt, max]` under shapes"


def test_a_dimension_without_a_name_is_an_error(tmp_path: Path) -> None:
    error = failure(mlp(None), tmp_path)
    assert "input 'x' has a dynamic dimension without a name" in error.message


def test_an_input_whose_values_decide_a_shape_is_an_error(tmp_path: Path) -> None:
    size = helper.make_tensor_value_info("size", TensorProto.INT64, [2])
    node = helper.make_node("Reshape", ["x", "size"], ["y"])
    error = failure(model([node], [value("x", "batch", 8), size], value("y", "a", "b")), tmp_path)
    assert "the values of input 'size' decide the shape of another tensor" in error.message


def test_an_unknown_architecture_lists_the_known_ones(tmp_path: Path) -> None:
    error = failure(mlp("batch"), tmp_path, EngineOptions(compute_capabilities=("5.2",)))
    assert "does not know compute capability 5.2" in error.message
    assert "8.6, 8.9, 12.0" in error.hint


def test_what_the_builder_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    error = failure(mlp("batch"), tmp_path, EngineOptions(compute_capabilities=("7.5",)))
    assert error.message.startswith("the engine builder failed: Cannot compile operation")
    assert "FP32 GEMM is not supported" in error.message
    assert "/_src/" not in error.message
    assert error.hint == "leave compute capability 7.5 out, or export in float16"


def test_what_rtx_takes_is_built_and_kept(tmp_path: Path) -> None:
    options = EngineOptions(
        memory={"workspace": 1 << 26, "tactic_shared_memory": 1 << 15}, aux_streams=0, sparse=True,
        weight_streaming=True, profiling_verbosity="detailed", optimization_level=2, tf32=True,
    )  # fmt: skip
    engine = build_engine(built(mlp("batch"), tmp_path), BATCH, options, tmp_path / "model.plan")
    assert engine.options == {
        "memory": {"workspace": 1 << 26, "tactic_shared_memory": 1 << 15}, "aux_streams": 0,
        "sparse": True, "weight_streaming": True, "profiling_verbosity": "detailed",
        "optimization_level": 2, "tf32": True,
    }  # fmt: skip
    assert engine.kinds == {"ACTIVATION": 1, "CONSTANT": 2, "MATRIX_MULTIPLY": 2}
    assert (engine.dtypes, engine.conditionals, engine.notes) == ({"float32": 5}, 0, ())


@pytest.mark.parametrize("asked", [{"refit": "any"}, {"strip_weights": True}])
def test_without_a_driver_weights_cannot_be_refitted_and_the_error_says_why(
    tmp_path: Path, asked: dict[str, Any]
) -> None:
    """So it is in 1.7.1; with a driver, or in a release that needs none, it builds."""
    said = "built"
    try:
        build_engine(
            built(mlp("batch"), tmp_path), BATCH, EngineOptions(**asked), tmp_path / "model.plan"
        )
    except EngineError as error:
        assert device_capability() is None
        said = error.hint
    assert said == "built" or "build there, or leave refit and strip_weights out" in said


def test_branches_that_differ_are_named_with_the_module_they_came_from(tmp_path: Path) -> None:
    half = helper.make_node("Cast", ["x"], ["b"], to=TensorProto.FLOAT16)
    kept = helper.make_node("Relu", ["x"], ["a"])
    branches = {
        "then_branch": helper.make_graph([kept], "t", [], [value("a", "batch", 8)]),
        "else_branch": helper.make_graph(
            [half], "e", [], [helper.make_tensor_value_info("b", TensorProto.FLOAT16, None)]
        ),
    }
    choose = helper.make_node("If", ["c"], ["y"], name="a/router/If", **branches)
    for key, said in (("member", "a"), ("module", "router")):
        choose.metadata_props.append(onnx.StringStringEntryProto(key=key, value=said))
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    error = failure(
        model([choose], [value("x", "batch", 8), condition], value("y", "batch", 8)), tmp_path
    )
    assert "(If): " in error.message
    assert error.message.endswith("; a/router/If is member a, module router")
    assert "both branches of an If need as many outputs" in error.hint


def test_a_graph_that_segfaults_the_builder_is_an_error_message(tmp_path: Path) -> None:
    """NVIDIA's builder of 1.7 dies on this graph; a release that takes it would build it."""
    path, plan = built(slice_in_if(), tmp_path), tmp_path / "model.plan"
    said = "built"
    try:
        build_engine(path, BATCH, RTX, plan)
    except EngineError as error:
        said = error.message + error.hint
    assert said == "built" or "builder crashed (signal SIGSEGV) during" in said
    assert plan.exists() == (said == "built")
    assert {entry.name for entry in tmp_path.iterdir()} <= {"model.onnx", "model.plan"}


@pytest.mark.parametrize("kind", ["linear", "log_linear"])
def test_a_fused_ensemble_with_its_functions_builds(tmp_path: Path, kind: str) -> None:
    member = built(mlp("batch"), tmp_path)
    leaves = tuple(graphs.Leaf(name, member, {}) for name in ("first", "second"))
    how = graphs.Combination(kind, "logits", (0.25, 0.75), "y")
    graphs.fuse(graphs.Ensemble("both", leaves, how, {}), tmp_path / "fused.onnx")
    engine = build_engine(tmp_path / "fused.onnx", BATCH, RTX, tmp_path / "model.plan")
    assert [spec.name for spec in engine.outputs] == ["y"]
    assert engine.inputs == (TensorSpec("x", "float32", ("batch", 8)),)


def test_the_builder_gets_the_options() -> None:
    """Read back from a real configuration, of which a double knows only what it is told."""
    trt = importlib.import_module("tensorrt_rtx")
    flags = trt.BuilderFlag
    for tf32 in (False, True):
        config = trt.Builder(trt.Logger()).create_builder_config()
        request: Any = {
            "tf32": tf32, "memory": {"workspace": 1 << 26, "tactic_shared_memory": 1 << 14},
            "optimization_level": 1, "aux_streams": 2, "refit": "any", "switches": list(SWITCHES),
            "profiling_verbosity": "detailed", "hardware_compatibility": "none",
            "compute_capabilities": ["12.0", "8.6"],
        }  # fmt: skip
        configure(trt, config, request)
        assert config.get_flag(flags.TF32) == tf32
        on = {name for name, flag in flags.__members__.items() if config.get_flag(flag)}
        assert on - {"TF32"} == {
            "REFIT", "STRIP_PLAN", "WEIGHT_STREAMING", "SPARSE_WEIGHTS", "VERSION_COMPATIBLE",
            "EXCLUDE_LEAN_RUNTIME",
        }  # fmt: skip
        assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 1 << 26
        assert config.get_memory_pool_limit(trt.MemoryPoolType.TACTIC_SHARED_MEMORY) == 1 << 14
        assert config.builder_optimization_level == 1
        assert config.max_aux_streams == 2
        assert config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED
        assert config.num_compute_capabilities == 2
        chosen = [config.get_compute_capability(index).name for index in range(2)]
        assert chosen == ["SM120", "SM86"]
