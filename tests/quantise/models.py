"""Small graphs with drawn weights, and how far answers in codes are from those in float32."""

from __future__ import annotations

import numpy as np
import onnx

from tests.graphs.models import write


def drawn(path, text, sizes, scale=lambda size: size[-1]):
    """The model of ``text`` with a name for every node and weights of those sizes."""
    random = np.random.default_rng(0)
    weights = {
        name: (random.normal(size=size) / max(1, scale(size)) ** 0.5).astype(np.float32)
        for name, size in sizes.items()
    }
    write(path, text, **weights)
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    for place, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{place}"
        for attribute in node.attribute:
            for below in attribute.g.node:
                below.name = f"{attribute.name}_{below.op_type}"
    onnx.save(model, path)
    return path


def rms_off(found, wanted):
    return np.sqrt(np.square(found - wanted).mean() / np.square(wanted).mean())
