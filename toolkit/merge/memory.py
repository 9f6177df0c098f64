"""Merging state dicts and modules in memory, with the numbers of the streamed form.

torch is used where tensors are torch's, and is not imported otherwise.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import MergeError
from toolkit.merge.config import from_mapping
from toolkit.merge.execute import Execution
from toolkit.merge.models import Library, Model
from toolkit.merge.plan import MergePlan
from toolkit.merge.planning import make_plan
from toolkit.merge.relatedness import check_related
from toolkit.merge.tensors import STORED, ArraySink, ArrayTensor, elements
from toolkit.merge.trimming import trim_over_model

if TYPE_CHECKING:
    from torch import nn

__all__ = ["merge_modules", "merge_state_dicts", "opened"]

Array = npt.NDArray[Any]
StateDict = Mapping[str, Any]

_BY_NAME = {
    "bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64", "bool": "BOOL",
    "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64",
}  # fmt: skip
_NAMES = {value: key for key, value in _BY_NAME.items()}


def merge_state_dicts(
    config: Mapping[str, Any],
    models: Mapping[str, StateDict],
    *,
    seed: int = 0,
    threads: int = 1,
    force: bool = False,
) -> dict[str, Any]:
    """Merge state dicts as a config says whose models are the keys of ``models``.

    Args:
        config: mergekit's grammar, as a mapping: ``{"merge_method": "linear", "models": [...]}``.
        models: State dicts by name; values are torch tensors or NumPy arrays (bfloat16 ones of
            ml_dtypes).
        seed: Of random methods.
        threads: How many tensors are merged at a time.
        force: Merge models that do not look related.

    Returns:
        Tensors of the kind that the first model has, on the CPU.

    Raises:
        MergeError: If they cannot be merged as asked.
    """
    plan = make_plan(from_mapping(config), Library(known=opened(models)), seed)
    check_related(plan, force=force)
    flat = _run(plan, threads)
    sample = next(iter(next(iter(models.values())).values()))
    as_torch = hasattr(sample, "detach")
    return {o.name: _restored(flat[o.name], o.dtype, o.shape, as_torch) for o in plan.outputs}


def merge_modules(
    config: Mapping[str, Any],
    modules: Mapping[str, nn.Module],
    *,
    seed: int = 0,
    force: bool = False,
) -> nn.Module:
    """Merge modules of one class; the result is a copy of the first with the merged weights.

    Args:
        config: As for ``merge_state_dicts``.
        modules: By name.
        seed: Of random methods.
        force: Merge modules that do not look related.

    Raises:
        MergeError: If they cannot be merged as asked.
    """
    states = {name: module.state_dict() for name, module in modules.items()}
    merged = merge_state_dicts(config, states, seed=seed, force=force)
    result = copy.deepcopy(next(iter(modules.values())))
    result.load_state_dict(merged)
    return result


def opened(models: Mapping[str, StateDict]) -> dict[str, Model]:
    """State dicts as models for a ``Library``; values are not copied."""
    return {name: Model(name, _tensors(name, state)) for name, state in models.items()}


def _run(plan: MergePlan, threads: int) -> dict[str, Array]:
    execution = Execution(threads)
    outputs = trim_over_model(plan.outputs, execution)
    flat = {o.name: np.empty(elements(o.shape), STORED[o.dtype]) for o in plan.outputs}

    def task(number: int) -> None:
        output = outputs[number]
        execution.merge(output, ArraySink(flat[output.name]))

    execution.run([lambda n=n: task(n) for n in range(len(outputs))])  # type: ignore[misc]
    return flat


def _tensors(model: str, state: StateDict) -> dict[str, ArrayTensor]:
    return {name: _tensor(f"{model}: {name}", value) for name, value in state.items()}


def _tensor(where: str, value: Any) -> ArrayTensor:
    if hasattr(value, "detach"):
        value = value.detach().cpu().contiguous()
        name = str(value.dtype).removeprefix("torch.")
        if name == "bfloat16":
            import torch  # noqa: PLC0415  (it is loaded: the tensor is torch's)

            value = value.view(torch.int16)
        array = value.numpy()
    else:
        array = np.ascontiguousarray(value)
        name = array.dtype.name
    if name not in _BY_NAME:
        raise MergeError(f"{where} is {name}, and merging computes with bfloat16 and floats")
    dtype = _BY_NAME[name]
    return ArrayTensor(array.reshape(-1).view(STORED[dtype]), dtype, tuple(array.shape))


def _restored(flat: Array, dtype: str, shape: tuple[int, ...], as_torch: bool) -> Any:
    if not as_torch:
        if dtype == "BF16":
            import ml_dtypes  # noqa: PLC0415  (only arrays of its type need it)

            flat = flat.view(ml_dtypes.bfloat16)
        return flat.view(np.bool_).reshape(shape) if dtype == "BOOL" else flat.reshape(shape)
    import torch  # noqa: PLC0415

    if dtype == "BF16":
        return torch.from_numpy(flat.view(np.int16)).view(torch.bfloat16).reshape(shape)
    return torch.from_numpy(flat).to(getattr(torch, _NAMES[dtype])).reshape(shape)
