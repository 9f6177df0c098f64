"""A parsed network as plain data, read through TensorRT's own objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from toolkit.engine.api import INetworkDefinition, IOptimizationProfile, ITensor, Module
from toolkit.engine.messages import NetworkFacts, Tensor

__all__ = ["dtype_of", "network_facts", "profile_ranges", "tensor_of"]

_DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT64": "int64",
    "INT32": "int32", "INT8": "int8", "UINT8": "uint8", "BOOL": "bool",
}  # fmt: skip


def dtype_of(name: str) -> str:
    """What a type of TensorRT's is called everywhere else."""
    return _DTYPES.get(name, name.lower())


def network_facts(
    trt: Module, network: INetworkDefinition, profiles: Sequence[IOptimizationProfile]
) -> NetworkFacts:
    """Read before building: the builder is free to change its network."""
    kinds: Counter[str] = Counter()
    dtypes: Counter[str] = Counter()
    conditionals = 0
    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        kinds[layer.type.name] += 1
        conditionals += layer.type == trt.LayerType.CONDITION
        for output in (layer.get_output(index) for index in range(layer.num_outputs)):
            if output is not None:
                dtypes[dtype_of(output.dtype.name)] += 1
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    dynamic = [tensor.name for tensor in inputs if -1 in tuple(tensor.shape)]
    return {
        "layers": network.num_layers,
        "inputs": [tensor_of(tensor) for tensor in inputs],
        "outputs": [tensor_of(network.get_output(i)) for i in range(network.num_outputs)],
        "kinds": dict(sorted(kinds.items())),
        "dtypes": dict(sorted(dtypes.items())),
        "conditionals": conditionals,
        "ranges": [profile_ranges(profile, dynamic) for profile in profiles],
    }


def profile_ranges(
    profile: IOptimizationProfile, names: Sequence[str]
) -> dict[str, list[list[int]]]:
    """Of every input: its smallest, usual and largest shape."""
    return {
        name: [[int(size) for size in shape] for shape in profile.get_shape(name)] for name in names
    }


def tensor_of(tensor: ITensor) -> Tensor:
    """Name, type and shape; None is a dimension without a name."""
    shape: list[int | str | None] = [
        size if size >= 0 else tensor.get_dimension_name(axis)
        for axis, size in enumerate(tuple(tensor.shape))
    ]
    return {"name": tensor.name, "dtype": dtype_of(tensor.dtype.name), "shape": shape}
