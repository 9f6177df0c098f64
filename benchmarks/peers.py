"""What other tools' checks say about the same graph, on a few random batches as they run them.

``optimum`` is its documented rule, not its code: optimum-onnx 0.1.0 asks for transformers < 4.58
and does not install beside the transformers that the models here are made with. Polygraphy's
comparison is its own, run in a virtual environment of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from toolkit.feeds import make_feeds
from toolkit.pipeline import Plan
from toolkit.runtime import Array, Feeds, Outputs

__all__ = ["PEERS", "Answers", "batches", "polygraphy_verdicts", "simple_verdicts"]

POLYGRAPHY = "polygraphy run"
PEERS = ("optimum's rule", POLYGRAPHY, "allclose 1e-3/1e-5", "cosine 0.997")
_BATCHES = 3
# optimum's dummy inputs are 2 rows of 16 tokens; sizes are cut to what the recipe allows.
_ROWS, _LENGTH = 2, 16

_FOLDER = Path(__file__).parent.parent / "build" / "venvs" / "polygraphy"
_PACKAGES = ("polygraphy==0.53.6", "numpy")
_SCRIPT = """
import json, sys
import numpy as np
from polygraphy.comparator import CompareFunc
from polygraphy.comparator.struct import IterationResult
from polygraphy.logger import G_LOGGER
G_LOGGER.module_severity = G_LOGGER.CRITICAL
arrays = {}
with np.load(sys.argv[1]) as file:
    for name in file.files:
        graph, batch, side, output = name.split("|")
        sides = arrays.setdefault((graph, batch), {"found": {}, "expected": {}})
        sides[side][output] = file[name]
compare = CompareFunc.simple()
same = {}
for (graph, batch), sides in arrays.items():
    found, expected = (IterationResult(outputs=sides[side]) for side in ("found", "expected"))
    same[graph] = same.get(graph, True) and all(map(bool, compare(found, expected).values()))
print(json.dumps(same))
"""


Answers = tuple[Sequence[Outputs], Sequence[Outputs] | None]
"""PyTorch's outputs for every batch, and a graph's; None for a graph that ONNX Runtime refuses."""


def batches(plan: Plan) -> list[Feeds]:
    """Three batches of random inputs without padding."""
    wanted = {name: _ROWS if name == "batch" else _LENGTH for name in plan.shapes}
    dims = {n: max(r.min, min(wanted[n], r.max)) for n, r in plan.shapes.items()}
    seed = plan.recipe.parity_seed
    return [
        make_feeds(plan.inputs, dims, np.random.default_rng((seed, number)), "full")
        for number in range(_BATCHES)
    ]


def simple_verdicts(
    expected: Sequence[Outputs], found: Sequence[Outputs] | None
) -> dict[str, bool]:
    """Whether each rule that is one line of numpy finds a fault; a graph that fails is found."""
    rules: dict[str, Callable[[Array, Array], bool]] = {
        PEERS[0]: lambda a, b: np.allclose(a, b, atol=1e-5),
        PEERS[2]: lambda a, b: np.allclose(a, b, rtol=1e-3, atol=1e-5),
        PEERS[3]: lambda a, b: _cosine(a, b) >= 0.997,
    }
    if found is None:
        return dict.fromkeys(rules, True)
    pairs = [
        (one[name], two[name]) for one, two in zip(expected, found, strict=True) for name in one
    ]
    if any(a.shape != b.shape for a, b in pairs):
        return dict.fromkeys(rules, True)
    return {name: not all(rule(a, b) for a, b in pairs) for name, rule in rules.items()}


def _cosine(one: Array, two: Array) -> float:
    a, b = (np.asarray(array, np.float64).ravel() for array in (one, two))
    norms = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norms if norms else 1.0


def polygraphy_verdicts(answers: Sequence[Answers]) -> list[bool]:
    """Whether ``polygraphy run``'s default comparison finds a fault in each graph."""
    arrays = {
        f"{graph}|{batch}|{side}|{name}": array
        for graph, (expected, found) in enumerate(answers)
        for side, outputs in (("expected", expected), ("found", found or ()))
        for batch, one in enumerate(outputs if found else ())
        for name, array in one.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "outputs.npz"
        np.savez(file, **arrays)  # type: ignore[arg-type]
        command = [str(_install()), "-c", _SCRIPT, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"polygraphy exited with {done.returncode}:\n{done.stderr[-2000:]}")
    same = json.loads(done.stdout.splitlines()[-1])
    return [not same.get(str(graph), False) for graph in range(len(answers))]


def _install() -> Path:
    """The Python of polygraphy's environment, which is made on first use."""
    python = _FOLDER / "bin" / "python"
    if not (_FOLDER / "bin" / "polygraphy").exists():
        print(f"installing {' '.join(_PACKAGES)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(_FOLDER)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", *_PACKAGES]
        subprocess.run(pip, check=True)
    return python
