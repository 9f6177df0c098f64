"""``toolkit merge`` against mergekit's own output, element by element, for every method of both."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import merge_peer
from benchmarks.merge_models import QUICK, Shape, write_family
from benchmarks.rows import Row
from toolkit.checkpoint import open_checkpoint
from toolkit.merge import MergeOptions, merge

__all__ = ["CONFIGS", "RANDOM", "run"]

Array = npt.NDArray[np.float64]

SHAPE = Shape(hidden=128, intermediate=352, layers=4, vocabulary=512, keys=64)
# Shares of elements that may differ by more than one rounding of bfloat16. mergekit computes in
# float32: an element whose terms cancel loses digits there, and one that lies on a threshold of
# trimming or importance may fall on either side.
CANCELLED = 2e-5
ON_THRESHOLD = 1e-2
# In float32 mergekit loses digits of the small angles between near models.
NEAR = 1e-3
# In tensors of more than a million elements mergekit takes quantiles of a sample.
SAMPLED = 3e-4


@dataclass(frozen=True)
class Comparison:
    """Shares of elements that differ at all, and by more than one rounding."""

    differ: float
    beyond: float


def _own(**weights: str) -> str:
    return "models:\n" + "".join(
        f"- {{model: {name}, parameters: {{{text}}}}}\n" for name, text in weights.items()
    )


_TWO = _own(a="weight: 0.3", b="weight: 0.9")
_THREE = _own(a="weight: 0.3", b="weight: 0.9", c="weight: 0.4")
_PLAIN = "models: [{model: a}, {model: b}, {model: c}]\n"
_BASE = "base_model: base\n"
_SLICES = """
slices:
- sources: [{model: a, layer_range: [0, 3]}]
- sources:
  - model: b
    layer_range: [1, 4]
    parameters: {scale: [{filter: down_proj, value: 0.5}, {value: 1.0}]}
"""
_SLICED_TIES = """
base_model: base
slices:
- sources:
  - {model: base, layer_range: [0, 2]}
  - {model: a, layer_range: [0, 2], parameters: {weight: 0.6, density: 0.5}}
  - {model: b, layer_range: [0, 2], parameters: {weight: [0.1, 0.5], density: 0.5}}
- sources:
  - {model: base, layer_range: [1, 4]}
  - {model: a, layer_range: [1, 4], parameters: {weight: 0.6, density: 0.5}}
  - {model: b, layer_range: [1, 4], parameters: {weight: [0.1, 0.5], density: 0.5}}
"""
_SLERP = """
base_model: base
models: [{model: base}, {model: a}]
parameters:
  t:
  - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
  - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
  - {value: 0.5}
"""
_CRUMBS = _own(
    a="weight: 0.3, density: 0.6, gamma: 0.05", b="weight: 0.9, density: 0.5, gamma: 0.02"
)
_DENSE = _own(a="weight: 0.3, density: 1.0", b="weight: 0.9, density: 1.0")

# By name: the method, the rest of the config, the share that may differ by more than a rounding.
CONFIGS: Mapping[str, tuple[str, str, float]] = {
    "linear": (
        "linear",
        _own(
            base="weight: 0.2",
            a="weight: [0.1, 0.9]",
            b="weight: [{filter: mlp, value: 0.7}, {value: 0.3}]",
        ),
        CANCELLED,
    ),
    "linear, not normalised": ("linear", "parameters: {normalize: false}\n" + _TWO, CANCELLED),
    "slerp": ("slerp", _SLERP, CANCELLED),
    "nuslerp": ("nuslerp", _TWO, CANCELLED),
    "nuslerp, base": ("nuslerp", _BASE + _TWO, CANCELLED),
    "nuslerp, rows": ("nuslerp", "parameters: {nuslerp_flatten: false}\n" + _TWO, CANCELLED),
    "nuslerp, columns": (
        "nuslerp",
        "parameters: {nuslerp_flatten: false, nuslerp_row_wise: true}\n" + _TWO,
        CANCELLED,
    ),
    "multislerp": ("multislerp", _THREE, CANCELLED),
    "multislerp, base": ("multislerp", _BASE + _THREE, NEAR),
    "multislerp, base, float64": ("multislerp", _BASE + _THREE + "dtype: float64\n", CANCELLED),
    "karcher": ("karcher", _PLAIN, CANCELLED),
    "task arithmetic": (
        "task_arithmetic",
        _BASE + "parameters: {lambda: 0.7}\n" + _own(a="weight: 0.3", b="weight: -0.9"),
        CANCELLED,
    ),
    "ties": (
        "ties",
        _BASE
        + _own(
            a="weight: 0.3, density: 0.4",
            b="weight: 0.9, density: [0.3, 1]",
            c="weight: 0.4, density: 0.7",
        ),
        CANCELLED,
    ),
    "ties, sum, rescaled": (
        "ties",
        _BASE
        + "parameters: {normalize: false, rescale: true, lambda: 0.5, int8_mask: true}\n"
        + _own(a="weight: 0.3, density: 0.4", b="weight: 0.9, density: 0.5"),
        CANCELLED,
    ),
    "ties, slices": ("ties", _SLICED_TIES, CANCELLED),
    "breadcrumbs": ("breadcrumbs", _BASE + _CRUMBS, CANCELLED),
    "breadcrumbs_ties": ("breadcrumbs_ties", _BASE + _CRUMBS, CANCELLED),
    "dare_linear, density 1": ("dare_linear", _BASE + _DENSE, CANCELLED),
    "dare_ties, density 1": ("dare_ties", _BASE + _DENSE, CANCELLED),
    "della, density 1": ("della", _BASE + _DENSE, CANCELLED),
    "della_linear, density 1": ("della_linear", _BASE + _DENSE, CANCELLED),
    "model_stock": ("model_stock", _BASE + _PLAIN, CANCELLED),
    "model_stock, rows": (
        "model_stock",
        _BASE + "parameters: {filter_wise: true}\n" + _PLAIN,
        CANCELLED,
    ),
    "sce": ("sce", _BASE + "parameters: {select_topk: 0.6}\n" + _PLAIN, CANCELLED),
    "nearswap": ("nearswap", _BASE + "parameters: {t: 0.001}\nmodels: [{model: a}]\n", CANCELLED),
    "arcee_fusion": ("arcee_fusion", _BASE + "models: [{model: a}]\n", ON_THRESHOLD),
    "arcee_fusion, float64": (
        "arcee_fusion",
        _BASE + "models: [{model: a}]\ndtype: float64\n",
        SAMPLED,
    ),
    "passthrough": ("passthrough", _SLICES, 0.0),
}

# Methods that draw: their masks differ, so what is compared is the share of kept entries and the
# factor on them. `rescale_by: l1` is mergekit's rule.
_DRAWN = _BASE + "models: [{model: a, parameters: {weight: 1.0, density: 0.4}}]\n"
RANDOM: Mapping[str, tuple[str, str]] = {
    "dare_linear": ("dare_linear", _DRAWN),
    "dare_ties": ("dare_ties", _DRAWN),
    "della_linear": ("della_linear", _DRAWN.replace("0.4", "0.4, epsilon: 0.3")),
}


def run(*, quick: bool) -> list[Row]:
    """Merge small float32 Llamas to bfloat16 with both, and compare.

    Continuous float32 weights, because bfloat16 ones put two elements in a hundred exactly on a
    trimming threshold, where mergekit keeps an arbitrary part of the equal ones.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shape = SHAPE if quick else QUICK
        write_family(folder, shape, ("base", "a", "b", "c"), dtype="float32", shards=1)
        texts = {n: (m, t) for n, (m, t, _) in CONFIGS.items()}
        texts |= {f"drawn {n}": text for n, text in RANDOM.items()}
        pairs = {n: _write_config(folder, n, *text) for n, text in texts.items()}
        merge_peer.run_configs(list(pairs.values()), folder)
        rows = []
        for n, (_, _, most) in CONFIGS.items():
            found = compare(_merged(folder, pairs[n][0], ""), pairs[n][1])
            rows += [
                Row(f"{n}: beyond one rounding", 100 * found.beyond, "%", bound=100 * most),
                Row(f"{n}: differing", 100 * found.differ, "%"),
            ]
        for n in RANDOM:
            rows += _drawn(n, folder, *pairs[f"drawn {n}"])
    return rows


def _write_config(folder: Path, name: str, method: str, text: str) -> tuple[Path, Path]:
    stem = name.replace(",", "").replace(" ", "-")
    path = folder / f"{stem}.yml"
    dtype = "" if "dtype:" in text else "dtype: float32\n"
    path.write_text(f"merge_method: {method}\n{text}{dtype}out_dtype: bfloat16\n")
    return path, folder / f"peer-{stem}"


def _merged(folder: Path, config: Path, extra: str) -> Path:
    out = folder / f"own-{config.stem}"
    text = config.read_text()
    own = folder / "own.yml"
    own.write_text(text + extra)
    merge(own, out, MergeOptions(force=True))
    return out


def compare(own: Path, peer: Path) -> Comparison:
    """Compare all tensors of two bfloat16 checkpoints.

    One rounding is a step of bfloat16 at the larger of the two magnitudes; results smaller than a
    millionth of the tensor's largest are cancellation and count as equal if they differ by less
    than that.
    """
    left, right = open_checkpoint(own), open_checkpoint(peer)
    if set(left.tensors) != set(right.tensors):
        odd = sorted(set(left.tensors) ^ set(right.tensors))
        raise RuntimeError(f"tensors that only one of the two wrote: {odd}")
    count = differing = beyond = 0
    for name in right.tensors:
        a, b = _values(left.read(name)), _values(right.read(name))
        largest = np.maximum(np.abs(a), np.abs(b))
        step = 2.0 ** (np.floor(np.log2(np.maximum(largest, 1e-30))) - 7)
        apart = np.abs(a - b)
        count += a.size
        differing += int(np.count_nonzero(apart))
        allowed = np.maximum(step, 1e-6 * float(largest.max(initial=0)))
        beyond += int(np.count_nonzero(apart > allowed * 1.001))
    return Comparison(differing / count, beyond / count)


def _drawn(name: str, folder: Path, config: Path, peer: Path) -> list[Row]:
    """The share of kept entries and the factor on them, mergekit's less ours."""
    own = _merged(folder, config, "parameters: {rescale_by: l1}\n")
    own_kept, own_factor = _masked(folder, own)
    peer_kept, peer_factor = _masked(folder, peer)
    return [
        Row(f"{name}: share kept, apart", abs(own_kept - peer_kept), "", bound=0.01),
        Row(f"{name}: factor / mergekit's factor - 1", abs(own_factor / peer_factor - 1), "",
            bound=0.02),
    ]  # fmt: skip


def _masked(folder: Path, out: Path) -> tuple[float, float]:
    """Over all matrices: the share of entries that moved, and by how much more than tau."""
    base, model, merged = (open_checkpoint(folder / n) for n in ("base", "a", str(out)))
    moved = total = 0
    factors = []
    for name, (_, entry) in merged.tensors.items():
        if len(entry.shape) < 2:
            continue
        origin = np.asarray(base.read(name), np.float64)
        tau = np.asarray(model.read(name), np.float64) - origin
        change = _values(merged.read(name)) - origin
        # What is left at the base differs from it by rounding to bfloat16 only.
        mask = np.abs(change) > np.abs(origin) * 2.0**-8
        clear = np.abs(tau) > np.abs(origin) * 2.0**-6
        moved += int(np.count_nonzero(mask & clear))
        total += int(np.count_nonzero(clear))
        factors.append(float(np.sum(np.abs(change[mask & clear]))
                             / np.sum(np.abs(tau[mask & clear]))))  # fmt: skip
    return moved / total, float(np.mean(factors))


def _values(bits: npt.NDArray[np.uint16]) -> Array:
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
