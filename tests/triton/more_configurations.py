"""Configurations of sequences, engines, accelerators and Python code; see ``configurations``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.triton.changes import Change, Edit, both, clears, configured, in_text, setitem

__all__ = ["MORE"]

CODE = """
class TritonPythonModel:
    def execute(self, requests):
        return [None for _ in requests]
"""


def sequence(c: Any) -> None:
    c.ClearField("dynamic_batching")
    c.ClearField("model_warmup")
    c.sequence_batching.max_sequence_idle_microseconds = 1000000
    c.sequence_batching.oldest.max_candidate_sequences = 4


def stateful_graph(folder: Path) -> None:
    """The model with a cache: ``past`` [batch, seen, 2], and one more position in ``present``."""
    path = folder / "1" / "model.onnx"
    (folder / "1" / "manifest.json").unlink()
    path.with_name("model.onnx.data").unlink(missing_ok=True)
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["logits"]),
            helper.make_node("Slice", ["x", "zero", "one", "axis"], ["piece"]),
            helper.make_node("Concat", ["piece", "piece"], ["pair"], axis=1),
            helper.make_node("Unsqueeze", ["pair", "axis"], ["new"]),
            helper.make_node("Concat", ["past", "new"], ["present"], axis=1),
        ],
        "stateful",
        [
            info("x", TensorProto.FLOAT, ["batch", 6]),
            info("past", TensorProto.FLOAT, ["batch", "seen", 2]),
        ],
        [
            info("logits", TensorProto.FLOAT, ["batch", 4]),
            info("present", TensorProto.FLOAT, ["batch", "longer", 2]),
        ],
        [
            numpy_helper.from_array(np.ones((6, 4), np.float32), "w"),
            *(
                numpy_helper.from_array(np.array([value]), name)
                for name, value in (("zero", 0), ("one", 1), ("axis", 1))
            ),
        ],
    )
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def keeps(*edits: Callable[[Any], object], first: bool = True) -> Change:
    """A model whose server keeps ``past``, and edits of its state."""

    def edit(c: Any) -> None:
        sequence(c)
        state = c.sequence_batching.state.add(
            input_name="past", output_name="present", data_type="TYPE_FP32", dims=[-1, 2]
        )
        if first:
            state.initial_state.add(name="past", data_type="TYPE_FP32", dims=[1, 2], zero_data=True)
        for each in edits:
            each(state)

    return both(stateful_graph, configured(edit))


def begins(**fields: Any) -> Callable[[Any], object]:
    def edit(state: Any) -> None:
        for name, value in fields.items():
            if name == "dims":
                setitem(state.initial_state[0].dims, value)
            else:
                setattr(state.initial_state[0], name, value)

    return edit


def plan(*edits: Edit, named: str = "model.plan") -> Change:
    """A plan: the stand-in for TensorRT reads the graph under another name."""

    def edit(c: Any) -> None:
        c.ClearField("backend")
        c.platform = "tensorrt_plan"
        c.default_model_filename = "model.plan"

    def rename(folder: Path) -> None:
        (folder / "1" / "manifest.json").unlink()
        (folder / "1" / "model.onnx").rename(folder / "1" / named)

    return both(rename, configured(edit, *edits))


def python(code: str | None = CODE, *edits: Edit) -> Change:
    def edit(c: Any) -> None:
        c.backend = "python"
        c.ClearField("default_model_filename")
        c.ClearField("model_warmup")

    def write(folder: Path) -> None:
        for path in (folder / "1").iterdir():
            path.unlink()
        (folder / "1" / "kept").write_text("")
        if code is not None:
            (folder / "1" / "model.py").write_text(code)

    return both(write, configured(edit, *edits))


def accelerated(kind: str, name: str, **parameters: str) -> Change:
    def edit(c: Any) -> None:
        accelerators = c.optimization.execution_accelerators
        each = getattr(accelerators, f"{kind}_execution_accelerator").add(name=name)
        for key, value in parameters.items():
            each.parameters.add(key=key, value=value)

    return configured(edit)


def profiles(*names: str) -> Edit:
    return lambda c: c.instance_group[0].profile.extend(names)


def for_gpus(file: str) -> Edit:
    return lambda c: c.cc_model_filenames.add(key="9.0", value=file)


def labelled(text: str, file: str = "labels.txt") -> Change:
    return both(
        configured(lambda c: setattr(c.output[0], "label_filename", file)),
        lambda folder: (folder / "labels.txt").write_text(text),
    )


def texts(steps: str) -> Change:
    """An ensemble on a step that is Python."""
    return both(
        in_text(
            'name: "NAME" platform: "ensemble" max_batch_size: 8\n'
            'input { name: "x" data_type: TYPE_FP32 dims: [6] }\n'
            'output { name: "logits" data_type: TYPE_FP32 dims: [4] }\n'
            f"ensemble_scheduling {{ {steps} }}"
        ),
        lambda folder: (folder / "config.pbtxt").write_text(
            (folder / "config.pbtxt").read_text().replace("NAME", folder.name)
        ),
    )


STEP = """step {{ model_name: "{model}" model_version: {version}
  input_map {{ key: "x" value: "x" }} output_map {{ key: "logits" value: "logits" }} }}"""

MORE: dict[str, Change] = {
    # What a server takes.
    "state": keeps(),
    "state_without_beginning": keeps(first=False),
    "state_listed_as_output": both(
        keeps(),
        configured(lambda c: c.output.add(name="present", data_type="TYPE_FP32", dims=[-1, 2])),
    ),
    "state_direct": both(keeps(), configured(lambda c: c.sequence_batching.direct.SetInParent())),
    "state_preferred": both(
        keeps(), configured(lambda c: c.sequence_batching.oldest.preferred_batch_size.append(4))
    ),
    "state_begins_empty": keeps(begins(dims=[0, 2])),
    "plan": plan(),
    "plan_with_backend": plan(lambda c: setattr(c, "backend", "tensorrt")),
    "plan_profiles": plan(profiles("0", "1")),
    "plan_for_gpus": plan(for_gpus("model.plan")),
    "plan_captured": plan(
        lambda c: [
            setattr(c.optimization.cuda, "graphs", True),
            c.optimization.cuda.graph_spec.add(batch_size=1)
            .input.add(key="x")
            .value.dim.extend([6]),
        ]
    ),
    "accelerator": accelerated(
        "gpu", "tensorrt", precision_mode="FP16", trt_profile_min_shapes="x:1x6"
    ),
    "accelerator_cpu": accelerated("cpu", "openvino"),
    "python": python(),
    "python_other_file": both(
        python(None, lambda c: setattr(c, "default_model_filename", "code.py")),
        lambda folder: (folder / "1" / "code.py").write_text(CODE),
    ),
    "ensemble_of_python": texts(STEP.format(model="python", version=-1)),
    "ensemble_of_version": texts(STEP.format(model="good", version=1)),
    "labels_too_few": labelled("a\nb\n"),
    "labels_empty": labelled(""),
    # What a server refuses.
    "state_two_beginnings": keeps(
        lambda s: s.initial_state.add(name="b", data_type="TYPE_FP32", dims=[1, 2], zero_data=True)
    ),
    "state_other_dtype": keeps(begins(data_type="TYPE_FP16")),
    "state_nameless": keeps(lambda s: s.initial_state[0].ClearField("name")),
    "state_fewer_dims": keeps(begins(dims=[1])),
    "state_open_beginning": keeps(begins(dims=[-1, 2])),
    "state_other_size": keeps(begins(dims=[1, 3])),
    "state_no_source": keeps(lambda s: s.initial_state[0].ClearField("zero_data")),
    "state_no_file": keeps(begins(data_file="nothing")),
    "state_of_stateless": configured(
        sequence,
        lambda c: c.sequence_batching.state.add(
            input_name="past", output_name="present", data_type="TYPE_FP32", dims=[-1, 2]
        ),
    ),
    "state_unlisted": both(stateful_graph, configured(sequence)),
    "sequence_cached": configured(sequence, lambda c: setattr(c.response_cache, "enable", True)),
    "sequence_preferred_too_large": configured(
        sequence, lambda c: c.sequence_batching.oldest.preferred_batch_size.append(9)
    ),
    "slots_above_one": configured(
        sequence,
        lambda c: setattr(c.sequence_batching.direct, "minimum_slot_utilization", 1.5),
    ),
    "correlation_float": configured(
        sequence,
        lambda c: c.sequence_batching.control_input.add(name="x").control.add(
            kind="CONTROL_SEQUENCE_CORRID", data_type="TYPE_FP32"
        ),
    ),
    "plan_missing": plan(named="engine.plan"),
    "plan_profile_word": plan(profiles("first")),
    "plan_other_backend": plan(lambda c: setattr(c, "backend", "onnxruntime")),
    "graph_profiles": configured(profiles("0")),
    "accelerator_unknown": accelerated("gpu", "warp"),
    "accelerator_cpu_tensorrt": accelerated("cpu", "tensorrt"),
    "accelerator_precision": accelerated("gpu", "tensorrt", precision_mode="FP8"),
    "python_missing": python(None),
    "python_syntax": python("class TritonPythonModel:\n    def execute(self requests): pass\n"),
    "python_no_class": python("class Model:\n    pass\n"),
    "python_not_text": both(
        python(), lambda folder: (folder / "1" / "model.py").write_bytes(b"\xff\xfe\x00")
    ),
    "ensemble_of_broken_python": texts(STEP.format(model="python_syntax", version=-1)),
    "ensemble_with_backend": both(
        texts(STEP.format(model="good", version=-1)),
        configured(lambda c: setattr(c, "backend", "onnxruntime")),
    ),
    "labels_elsewhere": labelled("a\nb\nc\nd\n", "names.txt"),
    # A server takes it, and cannot run it.
    "state_unknown_input": keeps(lambda s: setattr(s, "input_name", "passed")),
    "no_warmup_no_output": configured(clears("model_warmup", "output")),
}
