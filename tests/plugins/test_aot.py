"""Operators registered with NVIDIA's own bindings of both majors, kernels compiled by NVRTC."""

from __future__ import annotations

import pytest

from graphs import CONTRACTS
from tests.tensorrt_stubs.bindings import RELEASES, ROOT, ask
from toolkit.plugins import find_nvrtc
from toolkit.plugins.aot import OPERATORS

# The registry is TensorRT's own and so absent; this one keeps what it is given. Symbolic sizes are
# numbers here, behind the class that the bindings ask for.
SCRIPT = """
import math
sys.modules["tensorrt"] = trt
import tensorrt_bindings.plugin as trtp
sys.modules["tensorrt.plugin"] = trtp
import numpy as np
from pathlib import Path
from toolkit.errors import CapabilityError
from toolkit.plugins import find_nvrtc
from toolkit.plugins.aot import register

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

nvrtc = find_nvrtc(folders=[Path(question)])
ids = register(trt, trtp, nvrtc, "compute_90")
DTYPES = {"float32": trt.float32, "float16": trt.float16, "bfloat16": trt.bfloat16,
          "int64": trt.int64}

def tensor(dtype, *shape):
    return trtp.from_shape_expr(tuple(trtp.ShapeExpr(size) for size in shape), DTYPES[dtype])

def plain(expression):
    return expression if isinstance(expression, int) else expression._expr.value

KEPT = []  # a field points into an array and does not own it

def field(name, value):
    # As the ONNX parser gives it: int32 or float32.
    whole = isinstance(value, int)
    KEPT.append(np.array([value], np.int32 if whole else np.float32))
    kind = trt.PluginFieldType.INT32 if whole else trt.PluginFieldType.FLOAT32
    return trt.PluginField(name, KEPT[-1], kind)

def fields(**attributes):
    return trt.PluginFieldCollection([field(*each) for each in attributes.items()])

def made(name, inputs, **attributes):
    creator = Registry.creators[name]
    plugin = creator.create_plugin(name, "toolkit", fields(**attributes), trt.TensorRTPhase.BUILD,
                                   trt.QuickPluginCreationRequest.STRICT_AOT)
    plugin.get_output_data_types([desc.dtype for desc in inputs], [desc.ndim for desc in inputs])
    outputs = plugin.register_function(*inputs, **plugin.attrs)
    values = plugin.attrs.values()
    entry, ptx, launch, extra = plugin.aot_impl_function(*inputs, *values, outputs, None)
    ptx = ptx.decode()
    return {
        "attributes": {key: value.tolist()[0] for key, value in plugin.attrs.items()},
        "outputs": [[desc.dtype.name, [plain(d) for d in desc.shape_expr]] for desc in outputs],
        "entry": f".entry {entry}(" in ptx,
        "target": ptx.split(".target ")[1].split()[0],
        "parameters": ptx.split(f".entry {entry}(")[1].split(")")[0].count(".param"),
        "launch": [plain(launch.grid_x), plain(launch.block_x), plain(launch.shared_mem)],
        "extra": [plain(each) for each in extra],
    }

def refusal():
    release, trt.__version__ = trt.__version__, "10.8.0.43"
    try:
        register(trt, trtp, nvrtc, "compute_90")
    except CapabilityError as error:
        return error.message
    finally:
        trt.__version__ = release

names = [[field.name for field in creator.field_names] for creator in Registry.creators.values()]
places = [[c.plugin_namespace, c.plugin_version] for c in Registry.creators.values()]
plain_attributes = {"normalize": 1, "scale": 2.5}
groups = {"sigmoid": 1, "groups": 8, "top_groups": 4, "group_top": 2}
answer = {
    "version": trt.__version__,
    "ids": ids,
    "fields": dict(zip(Registry.creators, names)),
    "places": dict(zip(Registry.creators, places)),
    "many": made("TopKChoice", [tensor("bfloat16", 65536, 128)],
                 num_experts=128, k=8, **plain_attributes),
    "none": made("TopKChoice", [tensor("float32", 0, 8)], num_experts=8, k=2, **plain_attributes),
    "large": made("TopKChoice", [tensor("float16", 7, 1024)],
                  num_experts=1024, k=32, **plain_attributes),
    "grouped": made("GroupedTopKChoice", [tensor("bfloat16", 10, 256), tensor("float32", 256)],
                    num_experts=256, k=8, **plain_attributes, **groups),
    "dispatch": made("ExpertDispatch", [tensor("int64", 100, 4)], num_experts=60),
    "refusal": refusal(),
}
"""


@pytest.fixture(scope="module", params=RELEASES[1:])
def seen(request, tmp_path_factory):
    """What one release said of everything."""
    nvrtc = ROOT / "build" / "nvrtc"
    if find_nvrtc(folders=[nvrtc]) is None:
        pytest.skip("NVRTC is not installed, in build/nvrtc or elsewhere")
    found = ask(request.param, SCRIPT, str(nvrtc), tmp_path_factory.mktemp("stubs"))
    assert found["version"] == request.param
    return found


def test_the_operators_are_registered_as_their_contracts_say(seen):
    assert seen["ids"] == [f"toolkit::{name}" for name in OPERATORS]
    for name in OPERATORS:
        stated = {a.name: a.default for a in CONTRACTS[name].attributes}
        place = [stated.pop("plugin_namespace"), stated.pop("plugin_version")]
        assert seen["fields"][name] == list(stated)
        assert seen["places"][name] == place


@pytest.mark.parametrize(
    ("name", "sizes", "launch"),
    [
        ("many", (65536, 128, 8), [2048, 128, 0]),
        ("none", (0, 8, 2), [1, 128, 0]),
        ("large", (7, 1024, 32), [4, 64, 2 * 1024 * 12]),
    ],
)
def test_gating_is_one_kernel_with_its_attributes_in_it(seen, name, sizes, launch):
    tokens, experts, k = sizes
    found = seen[name]
    assert found["attributes"] == {"num_experts": experts, "k": k, "normalize": 1, "scale": 2.5}
    assert found["outputs"] == [["FLOAT", [tokens, k]], ["INT64", [tokens, k]]]
    assert found["launch"] == launch
    assert found["extra"] == [tokens]
    assert found["entry"]
    assert found["target"] == "sm_90"
    assert found["parameters"] == 4  # logits, tokens, weights, ids


def test_grouped_gating_takes_a_bias(seen):
    assert seen["grouped"]["launch"] == [3, 128, 0]
    assert seen["grouped"]["parameters"] == 5
    assert seen["grouped"]["outputs"] == [["FLOAT", [10, 8]], ["INT64", [10, 8]]]


def test_dispatch_is_one_block(seen):
    found = seen["dispatch"]
    shapes = [["INT64", [400]], ["INT64", [400]], ["INT64", [61]], ["BOOL", [60]]]
    assert found["outputs"] == shapes
    assert found["launch"] == [1, 1024, 33 * 60 * 4]
    assert found["extra"] == [100, 4]
    assert found["parameters"] == 7  # ids, tokens, k, and four outputs


def test_a_release_without_this_kind_of_plugin_is_refused(seen):
    wanted = "TensorRT 10.8.0.43 cannot put kernels into an engine; wanted 10.9 or later"
    assert seen["refusal"] == wanted
