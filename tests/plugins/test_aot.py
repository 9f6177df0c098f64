"""Operators registered with NVIDIA's own bindings of both majors, kernels compiled by NVRTC."""

from __future__ import annotations

import pytest

from graphs import CONTRACTS
from tests.plugins import bindings
from tests.plugins.bindings import RELEASES
from toolkit.plugins.aot import OPERATORS

# The registry is TensorRT's own and so absent; this one keeps what it is given. Symbolic sizes are
# numbers here, behind the class that the bindings ask for.
DOUBLES = """
import json, math
from pathlib import Path
from toolkit.plugins import find_nvrtc, register

class Number:
    def __init__(self, value): self.value = value
    def is_constant(self): return True
    def get_constant_value(self): return self.value

class Builder:
    constant = staticmethod(Number)
    def operation(self, kind, a, b):
        names = {"SUM": lambda a, b: a + b, "PROD": lambda a, b: a * b, "MAX": max,
                 "CEIL_DIV": lambda a, b: math.ceil(a / b)}
        return Number(names[kind.name](a.value, b.value))

class Registry:
    creators = {}
    def register_creator(self, creator, namespace): self.creators[creator.name] = creator
    def get_creator(self, name, version, namespace): return self.creators[name]

trt.IDimensionExpr = Number
trt.get_plugin_registry = Registry
from tensorrt.plugin import _lib, _tensor
_tensor.SymIntExpr._exprBuilder = Builder()

nvrtc = find_nvrtc(folders=[Path("build/nvrtc").absolute()])
names = register(trt, trtp, nvrtc, "compute_90")
DTYPES = {"float32": trt.float32, "float16": trt.float16, "bfloat16": trt.bfloat16,
          "int64": trt.int64}

def tensor(dtype, *shape):
    return trtp.from_shape_expr(tuple(trtp.ShapeExpr(size) for size in shape), DTYPES[dtype])

def plain(expression):
    return expression if isinstance(expression, int) else expression._expr.value

def fields(**attributes):
    # As the ONNX parser gives them: int32, float32, in the creator's order.
    import numpy as np
    kinds = {int: (np.int32, trt.PluginFieldType.INT32), float: (np.float32, trt.PluginFieldType.FLOAT32)}
    return trt.PluginFieldCollection([
        trt.PluginField(name, np.array([value], kinds[type(value)][0]), kinds[type(value)][1])
        for name, value in attributes.items()])

def made(name, inputs, **attributes):
    creator = Registry.creators[name]
    plugin = creator.create_plugin(name, "toolkit", fields(**attributes), trt.TensorRTPhase.BUILD,
                                   trt.QuickPluginCreationRequest.STRICT_AOT)
    plugin.get_output_data_types([desc.dtype for desc in inputs], [desc.ndim for desc in inputs])
    outputs = plugin.register_function(*inputs, **plugin.attrs)
    entry, ptx, launch, extra = plugin.aot_impl_function(*inputs, *plugin.attrs.values(), outputs, None)
    ptx = ptx.decode()
    return {
        "attributes": plugin.attrs,
        "outputs": [[desc.dtype.name, [plain(d) for d in desc.shape_expr]] for desc in outputs],
        "entry": f".entry {entry}(" in ptx,
        "target": ptx.split(".target ")[1].split()[0],
        "parameters": ptx.split(f".entry {entry}(")[1].split(")")[0].count(".param"),
        "grid": plain(launch.grid_x()), "block": plain(launch.block_x()),
        "shared": plain(launch.shared_mem()), "extra": [plain(e) for e in extra],
    }
"""

ATTRIBUTES = "num_experts={}, k={}, normalize=1, scale=2.5"


@pytest.mark.parametrize("major", sorted(RELEASES))
def test_the_operators_are_registered_as_their_contracts_say(major, tmp_path):
    script = """
found = {name: [[f.name for f in creator.field_names], creator.plugin_namespace, creator.plugin_version]
         for name, creator in Registry.creators.items()}
print(json.dumps([trt.__version__, names, found]))
"""
    version, names, found = bindings.run(major, DOUBLES + script, tmp_path)
    assert version.startswith(f"{major}.")
    assert names == [f"toolkit::{name}" for name in OPERATORS]
    for name in OPERATORS:
        stated = {a.name: a.default for a in CONTRACTS[name].attributes}
        where = [stated.pop("plugin_namespace"), stated.pop("plugin_version")]
        assert found[name] == [list(stated), *where]


@pytest.mark.parametrize("major", sorted(RELEASES))
@pytest.mark.parametrize(
    ("dtype", "experts", "k", "tokens", "launch"),
    [
        ("bfloat16", 128, 8, 65536, (2048, 128, 0)),
        ("float32", 8, 2, 0, (1, 128, 0)),
        ("float16", 1024, 32, 7, (4, 64, 24576)),
    ],
)
def test_gating_is_one_kernel_with_its_attributes_baked_in(  # noqa: PLR0917
    major, dtype, experts, k, tokens, launch, tmp_path
):
    attributes = ATTRIBUTES.format(experts, k)
    script = (
        f"inputs = [tensor({dtype!r}, {tokens}, {experts})]\n"
        f"print(json.dumps(made('TopKChoice', inputs, {attributes})))"
    )
    found = bindings.run(major, DOUBLES + script, tmp_path)
    assert found["attributes"] == {"num_experts": experts, "k": k, "normalize": 1, "scale": 2.5}
    assert found["outputs"] == [["FLOAT", [tokens, k]], ["INT64", [tokens, k]]]
    assert (found["grid"], found["block"], found["shared"]) == launch
    assert found["extra"] == [tokens]
    assert found["entry"]
    assert found["target"] == "sm_90"
    assert found["parameters"] == 4  # logits, tokens, weights, ids


@pytest.mark.parametrize("major", sorted(RELEASES))
def test_grouped_gating_takes_a_bias(major, tmp_path):
    attributes = ATTRIBUTES.format(256, 8) + ", sigmoid=1, groups=8, top_groups=4, group_top=2"
    script = (
        "inputs = [tensor('bfloat16', 10, 256), tensor('float32', 256)]\n"
        f"print(json.dumps(made('GroupedTopKChoice', inputs, {attributes})))"
    )
    found = bindings.run(major, DOUBLES + script, tmp_path)
    assert (found["grid"], found["block"], found["shared"]) == (3, 128, 0)
    assert found["parameters"] == 5


@pytest.mark.parametrize("major", sorted(RELEASES))
def test_dispatch_is_one_block(major, tmp_path):
    script = (
        "inputs = [tensor('int64', 100, 4)]\n"
        "print(json.dumps(made('ExpertDispatch', inputs, num_experts=60)))"
    )
    found = bindings.run(major, DOUBLES + script, tmp_path)
    shapes = [["INT64", [400]], ["INT64", [400]], ["INT64", [61]], ["BOOL", [60]]]
    assert found["outputs"] == shapes
    assert (found["grid"], found["block"], found["shared"]) == (1, 1024, 33 * 60 * 4)
    assert found["extra"] == [100, 4]
    assert found["parameters"] == 7


@pytest.mark.parametrize("major", sorted(RELEASES))
def test_a_release_without_this_kind_of_plugin_is_refused(major, tmp_path):
    script = """
from toolkit.errors import CapabilityError
trt.__version__ = "10.8.0.43"
try:
    register(trt, trtp, nvrtc, "compute_90")
except CapabilityError as error:
    print(json.dumps(error.message))
"""
    said = bindings.run(major, DOUBLES + script, tmp_path)
    assert said == "TensorRT 10.8.0.43 cannot put kernels into an engine; wanted 10.9 or later"
