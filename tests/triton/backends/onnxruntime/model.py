"""Stands in for Triton's onnxruntime backend, as a Python-based backend of the same name.

Everything but running the graph is the real server. What it refuses when a model is loaded is what
the real backend refuses: tensors that are missing, of another type, or of another shape.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

_DTYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.batched = config["max_batch_size"] > 0
        batching = config.get("sequence_batching", {})
        self.controls = [c["name"] for c in batching.get("control_input", []) if c.get("control")]
        self.kept = [*self.controls, *batching.get("state", [])]
        self._check_accelerators(config.get("optimization", {}).get("execution_accelerators", {}))
        folder = Path(args["model_repository"]) / args["model_version"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        path = folder / (config["default_model_filename"] or "model.onnx")
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.outputs = [output["name"] for output in config["output"]]
        self._check("input", config["input"], self.session.get_inputs())
        self._check("output", config["output"], self.session.get_outputs())

    def _check_accelerators(self, accelerators):
        for kind, known in (("gpu", ("tensorrt", "cuda")), ("cpu", ("openvino",))):
            for each in accelerators.get(f"{kind}_execution_accelerator", []):
                mode = each.get("parameters", {}).get("precision_mode", "FP32")
                if each["name"] not in known or mode not in ("FP32", "FP16", "INT8"):
                    raise ValueError(f"unknown accelerator {each}")

    def _check(self, kind, listed, found):
        actual = {tensor.name: tensor for tensor in found}
        names = {tensor["name"] for tensor in listed}
        if unknown := names - set(actual):
            raise ValueError(f"unexpected {kind} {sorted(unknown)}, the model has {list(actual)}")
        if kind == "input" and len(actual) != len(names) + len(self.kept):
            raise ValueError(f"the model has inputs {list(actual)}, which are not configured")
        if kind == "input" and (absent := [name for name in self.controls if name not in actual]):
            raise ValueError(f"the model has no {absent}, which controls want")
        for tensor in listed:
            self._check_one(kind, tensor, actual[tensor["name"]])

    def _check_one(self, kind, tensor, actual):
        name = tensor["name"]
        if _DTYPES.get(actual.type) != tensor["data_type"]:
            raise ValueError(f"{kind} {name} is {actual.type}, configured {tensor['data_type']}")
        found = [dim if isinstance(dim, int) else -1 for dim in actual.shape]
        wanted = [int(dim) for dim in tensor.get("reshape", {}).get("shape", tensor["dims"])]
        if self.batched:
            if not found or found[0] != -1:
                raise ValueError(f"{kind} {name} {found} has no batch dimension")
            found = found[1:]
        same = len(found) == len(wanted) and all(
            has == want or (has == -1 and kind == "input")
            for has, want in zip(found, wanted, strict=False)
        )
        if not same:
            raise ValueError(f"{kind} {name} has shape {found}, configured {wanted}")

    def execute(self, requests):
        """One response for each request; those of a batch run together if their shapes allow."""
        inputs = [
            {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            for request in requests
        ]
        shapes = {tuple(array.shape[1:] for array in one.values()) for one in inputs}
        if not self.batched or len(shapes) > 1:
            return [self._response(self.session.run(self.outputs, one)) for one in inputs]
        if not self.outputs:
            return [self._response([]) for _ in inputs]
        feeds = {name: np.concatenate([one[name] for one in inputs]) for name in inputs[0]}
        ends = np.cumsum([len(next(iter(one.values()))) for one in inputs])
        found = self.session.run(self.outputs, feeds)
        return [
            self._response([array[start:stop] for array in found])
            for start, stop in zip((0, *ends), ends, strict=False)
        ]

    def _response(self, arrays):
        tensors = [
            pb_utils.Tensor(name, np.ascontiguousarray(array))
            for name, array in zip(self.outputs, arrays, strict=True)
        ]
        return pb_utils.InferenceResponse(tensors)
