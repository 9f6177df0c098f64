"""Bring members to one opset version."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import onnx_ir as ir
from onnx import shape_inference, version_converter

from graphs.errors import GraphError
from graphs.ops import DOMAIN, MIN_OPSET
from graphs.tensors import SMALL

__all__ = ["common_opset", "convert"]

_FAILURES = (RuntimeError, shape_inference.InferenceError, version_converter.ConvertError)


def common_opset(models: list[tuple[str, ir.Model]]) -> dict[str, int]:
    """The opset imports of the fused graph: the members' highest, other domains as they are.

    Raises:
        GraphError: If members import different versions of another domain.
    """
    imports: dict[str, int] = {"": MIN_OPSET}
    owners: dict[str, str] = {}
    for name, model in models:
        for domain, version in model.graph.opset_imports.items():
            if domain == "":
                imports[""] = max(imports[""], version)
            elif imports.setdefault(domain, version) != version:
                raise GraphError(
                    f"member {owners[domain]!r} imports version {imports[domain]} of domain "
                    f"{domain!r} and member {name!r} version {version}, wanted one version"
                )
            owners.setdefault(domain, name)
    return {domain: imports[domain] for domain in sorted(imports) if domain != DOMAIN}


def convert(model: ir.Model, name: str, opset: int) -> ir.Model:
    """Convert a member to a higher opset with ONNX's converter; weights do not pass through it.

    Raises:
        GraphError: If the converter has no way from the member's opset, or the member has
            functions of its own, which the converter drops.
    """
    found = model.graph.opset_imports.get("", 0)
    if found == opset:
        return model
    if model.functions:
        raise GraphError(
            f"member {name!r} has opset {found} and model-local functions, and the others "
            f"need opset {opset}",
            hint=f"export member {name!r} again with opset {opset}",
        )

    def converter(proto: onnx.ModelProto) -> onnx.ModelProto:
        return version_converter.convert_version(proto, opset)

    try:
        return _without_weights(model, converter)
    except _FAILURES as error:
        reason = str(error).strip().splitlines()[-1]
        raise GraphError(
            f"member {name!r} has opset {found} and cannot be converted to {opset}: {reason}",
            hint=f"export member {name!r} again with opset {opset}",
        ) from error


def _without_weights(
    model: ir.Model, converter: Callable[[onnx.ModelProto], onnx.ModelProto]
) -> ir.Model:
    """Run a function of ONNX's C++ library with large initializers turned into inputs.

    The library copies every tensor it is given and takes no model over 2 GiB. Small initializers
    stay, because adapters read them (axes, scales).
    """
    graph = model.graph
    large = {
        str(value.name): value.const_value
        for value in graph.initializers.values()
        if value.const_value is not None and value.const_value.nbytes >= SMALL
    }
    for name, tensor in large.items():
        value = graph.initializers.pop(name)
        value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        value.const_value = None
        if not value.is_graph_input():
            graph.inputs.append(value)
    converted = ir.serde.deserialize_model(converter(ir.serde.serialize_model(model)))
    for value in list(converted.graph.inputs):
        if value.name in large:
            converted.graph.inputs.remove(value)
            value.const_value = large[value.name]
            converted.graph.register_initializer(value)
    for old, new in zip(graph.outputs, converted.graph.outputs, strict=True):
        # The converter infers shapes anew, and its names for dimensions are not the model's.
        new.shape = old.shape
    return converted
