"""Small ONNX models made from text, and ways to run and print them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper, parser, printer

from graphs import Leaf

GOLDENS = Path(__file__).parent.parent / "goldens"

DEFAULT = """
<ir_version: 10, opset_import: ["" : 20]>
net (float[batch, 4] x) => (float[batch, 3] logits)
{
  hidden = MatMul (x, weight)
  logits = Relu (hidden)
}
"""


def write(path: Path, text: str = DEFAULT, **weights: np.ndarray) -> Path:
    """Parse a model, attach its initializers and write it."""
    model = parser.parse_model(text)
    for name, array in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.save(model, path)
    return path


def net(path: Path, seed: int, text: str = DEFAULT) -> Path:
    """The default model with weights drawn from a seed: relu(x @ weight)."""
    weight = np.random.default_rng(seed).normal(size=(4, 3)).astype(np.float32)
    return write(path, text, weight=weight)


def identity(
    path: Path, *, dtype: str = "float", output: str = "logits", dims: str = "[b, 3]"
) -> Path:
    """A member whose output is its input ``z``: what is combined is what is fed."""
    kind = dtype + dims
    text = (
        f'<ir_version: 10, opset_import: ["" : 20]>\n'
        f"net ({kind} z) => ({kind} {output}) {{ {output} = Identity (z) }}"
    )
    return write(path, text)


def identities(folder: Path, count: int, **options: str) -> tuple[Leaf, ...]:
    """Members m0, m1, … that pass on the inputs z0, z1, …."""
    path = identity(folder / "identity.onnx", **options)
    return tuple(Leaf(f"m{i}", path, {"z": f"z{i}"}) for i in range(count))


def session(model: Path | bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(str(model) if isinstance(model, Path) else model, options)


def run(path: Path, **feeds: np.ndarray) -> np.ndarray:
    """The first output in ONNX Runtime."""
    return session(path).run(None, feeds)[0]


def text_of(path: Path) -> str:
    """Netron in text: interface, nodes with names, initializers, functions."""
    return printer.to_text(onnx.load(path)) + "\n"


def check_golden(name: str, text: str) -> None:
    """Compare with the stored text; ``UPDATE_GOLDENS=1`` stores it instead."""
    golden = GOLDENS / name
    if os.environ.get("UPDATE_GOLDENS"):
        golden.write_text(text)
    assert text == golden.read_text(), "UPDATE_GOLDENS=1 rewrites it; read the difference first"


def log_softmax(z: np.ndarray) -> np.ndarray:
    """Along the last axis; a row of -inf gives -inf."""
    z = z.astype(np.float64)
    peak = np.maximum(z.max(-1, keepdims=True), np.finfo(np.float32).min)
    with np.errstate(divide="ignore"):
        mass = np.maximum(np.exp(z - peak).sum(-1, keepdims=True), 1)
    return z - peak - np.log(mass)


def linear(members: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """log sum_m w_m softmax(z_m), in float64."""
    w = weights.astype(np.float64).reshape(-1, *[1] * (members.ndim - 1))
    with np.errstate(divide="ignore"):
        terms = np.log(w) + log_softmax(members)
        return np.logaddexp.reduce(terms, axis=0)


def log_linear(members: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """log_softmax(sum_m w_m z_m), in float64, where a weight of 0 silences its member."""
    w = weights.astype(np.float64).reshape(-1, *[1] * (members.ndim - 1))
    return log_softmax((np.where(w > 0, members, 0.0).astype(np.float64) * w).sum(0))
