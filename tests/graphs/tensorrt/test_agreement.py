"""The static checker and TensorRT-RTX's builder, which needs no GPU, say the same of each graph."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np
import onnx
import pytest

from graphs import Violation, check_tensorrt
from graphs.tensorrt.rules import RULES
from tests.graphs.tensorrt.families import families
from tests.graphs.tensorrt.planted import KEPT, PLANTED, Planted, write_planted
from tests.graphs.tensorrt.rtx import verdicts

pytestmark = pytest.mark.rtx

# The parser names nothing wrong there and builds: the rules are this project's, or about values.
TAKEN_BY_THE_BUILDER = {"dimension-unnamed", "dimension-range"} | {
    name for name, rule in RULES.items() if rule.effect == "wrong values"
}
TYPES = ("float", "float16", "double", "int64", "int32", "int8", "uint8", "bool")


def shaped(names: str, inputs: str, outputs: str, call: str, **weights: np.ndarray):
    """Rows of operators: what ``T`` stands for is the type that is tried."""
    return dict.fromkeys(names.split(), (inputs, outputs, call, weights))


ROWS, ROW, TWO = "T[batch,4] x", "T[batch,4] y", "T[batch,4] x, T[batch,4] z"
OPERATORS = {
    **shaped("Abs Exp Erf Floor Identity Neg Not Relu Sigmoid Sign Softmax Sqrt Tanh Trilu",
             ROWS, ROW, "y = OP (x)"),
    **shaped("IsNaN", ROWS, "bool[batch,4] y", "y = OP (x)"),
    **shaped("Add Div Max Mod Mul Pow Sub", TWO, ROW, "y = OP (x, z)"),
    **shaped("And Equal Greater Less Or", TWO, "bool[batch,4] y", "y = OP (x, z)"),
    **shaped("ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceSum",
             ROWS, "T[batch,1] y", "y = OP (x, a)", a=np.array([1])),
    **shaped("CumSum", ROWS, ROW, "y = OP (x, a)", a=np.array(0)),
    **shaped("TopK", ROWS, "T[batch,2] y", "y, i = OP (x, k)", k=np.array([2])),
    **shaped("MatMul", "T[batch,4] x, T[4,3] z", "T[batch,3] y", "y = OP (x, z)"),
    **shaped("Where", ROWS + ", bool[batch,4] c", ROW, "y = OP (c, x, x)"),
    **shaped("Concat", ROWS, ROW, "y = OP <axis = 0> (x, x)"),
    **shaped("Gather", ROWS + ", int64[k] i", "T[k,4] y", "y = OP (x, i)"),
    **shaped("ScatterND", ROWS + ", int64[k,1] i, T[k,4] u", ROW, "y = OP (x, i, u)"),
    **shaped("Clip", ROWS + ", T low", ROW, "y = OP (x, low)"),
}  # fmt: skip


def sweep():
    """One node for every operator and type that ONNX allows."""
    for kind in TYPES:
        for name, (inputs, outputs, call, weights) in OPERATORS.items():
            place = 1 if name == "Where" else 0
            if f"tensor({kind})" not in onnx.defs.get_schema(name, 20).inputs[place].types:
                continue
            signature = f"g ({inputs}) => ({outputs}) ".replace("T[", kind + "[")
            signature = signature.replace("T low", kind + " low")
            text = f"{signature}{{ {call.replace('OP', name)} }}"
            yield Planted(text, node=f"{name} of {kind}", weights=weights)
        to = onnx.TensorProto.DataType.Value(kind.upper())
        text = f"g (float[batch,4] x) => ({kind}[batch,4] y) {{ y = Cast <to = {to}> (x) }}"
        yield Planted(text, node=f"Cast to {kind}")


def refusals(path) -> list[Violation]:
    found = check_tensorrt(path, "tensorrt-rtx", version("tensorrt-rtx"))
    return [each for each in found if each.rule not in TAKEN_BY_THE_BUILDER]


@pytest.mark.parametrize(
    ("graphs", "good", "bad"),
    [([*PLANTED, *KEPT], 15, 40), (list(sweep()), 150, 30)],
    ids=["planted and kept", "operators and types"],
)
def test_the_checker_and_the_builder_agree(graphs, good, bad, tmp_path):
    paths = {
        write_planted(each, tmp_path / f"{place}.onnx"): each.name
        for place, each in enumerate(graphs)
    }
    built = verdicts(paths)
    said = {path: refusals(path) for path in paths}
    assert sum(1 for verdict in built.values() if not verdict) >= good
    assert sum(1 for verdict in built.values() if verdict) >= bad
    differ = {
        name: (built[path], [str(each) for each in said[path]])
        for path, name in paths.items()
        if bool(built[path]) != bool(said[path])
    }
    assert differ == {}


def test_what_this_project_makes_passes_and_builds(tmp_path):
    paths = list(families(tmp_path))
    assert len(paths) >= 20
    assert {path.name: reason for path, reason in verdicts(paths).items() if reason} == {}
    for target in ("tensorrt", "tensorrt-rtx"):
        found = {path.name: check_tensorrt(path, target) for path in paths}
        named = {
            name: [str(each) for each in all_ if each.rule != "dimension-unnamed"]
            for name, all_ in found.items()
        }
        assert {name: texts for name, texts in named.items() if texts} == {}
