"""Model configurations, good and broken, each a change to one that loads.

The model: ``x`` float32 [batch, 6] to ``logits`` float32 [batch, 4], batches of up to 8.
``write_all`` makes one repository of all of them, so one server judges them all.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from tests.triton.changes import (
    Change,
    Edit,
    both,
    clears,
    configured,
    in_text,
    setitem,
    sets,
    written,
)
from tests.triton.more_configurations import MORE

__all__ = ["CONFIGURATIONS", "write_all"]


def dims(kind: str, *sizes: int) -> Edit:
    return lambda c: setitem(getattr(c, kind)[0].dims, sizes)


def reshaped(kind: str, given: tuple[int, ...], shape: tuple[int, ...]) -> Edit:
    def edit(c: Any) -> None:
        tensor = getattr(c, kind)[0]
        setitem(tensor.dims, given)
        tensor.reshape.SetInParent()
        tensor.reshape.shape.extend(shape)

    return edit


def unbatched(c: Any) -> None:
    c.max_batch_size = 0
    c.ClearField("dynamic_batching")
    c.ClearField("model_warmup")
    setitem(c.input[0].dims, (-1, 6))
    setitem(c.output[0].dims, (-1, 4))


def warm(edit: Edit) -> Edit:
    return lambda c: edit(c.model_warmup[0])


def warm_input(**fields: Any) -> Edit:
    return lambda c: [
        setattr(c.model_warmup[0].inputs[0].value, name, value) for name, value in fields.items()
    ]


STEP = """
step { model_name: "good" model_version: -1
  input_map { key: "x" value: "x" } output_map { key: "logits" value: "logits" } }
"""


def ensemble(steps: str | None = STEP, *, rows: int = 8, dtype: str = "TYPE_FP32") -> Change:
    def change(folder: Path) -> None:
        (folder / "config.pbtxt").write_text(
            f'name: "{folder.name}" platform: "ensemble" max_batch_size: {rows}\n'
            'input { name: "x" data_type: TYPE_FP32 dims: [6] }\n'
            f'output {{ name: "logits" data_type: {dtype} dims: [4] }}\n'
            + (f"ensemble_scheduling {{ {steps} }}" if steps is not None else "")
        )
        (folder / "1" / "model.onnx").rename(folder / "1" / "kept")

    return change


def versions(*names: str) -> Change:
    def change(folder: Path) -> None:
        kept = folder / "kept"
        (folder / "1").rename(kept)
        for name in names:
            shutil.copytree(kept, folder / name)
        shutil.rmtree(kept)

    return change


def queue(**fields: Any) -> Edit:
    return lambda c: [setattr(c.dynamic_batching, name, value) for name, value in fields.items()]


def group(**fields: Any) -> Edit:
    def edit(c: Any) -> None:
        del c.instance_group[:]
        c.instance_group.add(**fields)

    return edit


def sequence(c: Any) -> None:
    c.ClearField("dynamic_batching")
    c.sequence_batching.max_sequence_idle_microseconds = 1000000


def control(kind: str, *values: int) -> Edit:
    def edit(c: Any) -> None:
        sequence(c)
        made = c.sequence_batching.control_input.add(name="START").control.add(kind=kind)
        made.int32_false_true.extend(values)

    return edit


def external(harm: Callable[[Path], object]) -> Change:
    """The weights in a file beside the graph, and what happens to it."""

    def change(folder: Path) -> None:
        path = folder / "1" / "model.onnx"
        model = onnx.load(path)
        path.unlink()
        onnx.save(
            model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=90
        )
        (folder / "1" / "manifest.json").unlink()
        harm(folder / "1" / "model.onnx.data")

    return change


CONFIGURATIONS: dict[str, Change] = {
    # What a server takes.
    "good": lambda folder: None,
    "no_name": configured(clears("name")),
    "platform_only": configured(clears("backend"), sets(platform="onnxruntime_onnx")),
    "platform_and_backend": configured(sets(platform="onnxruntime_onnx")),
    "no_filename": configured(clears("default_model_filename")),
    "smaller_batch": configured(sets(max_batch_size=4), clears("model_warmup")),
    "unbatched": configured(unbatched),
    "unbatched_input_fixed": configured(unbatched, dims("input", 3, 6)),
    "no_scheduler": configured(clears("dynamic_batching")),
    "no_warmup": configured(clears("model_warmup")),
    "no_instance_group": configured(clears("instance_group")),
    "no_version_policy": configured(clears("version_policy")),
    "kind_cpu": configured(group(kind="KIND_CPU", count=2)),
    "kind_model": configured(group(kind="KIND_MODEL", count=1)),
    "count_zero": configured(group(kind="KIND_CPU", count=0)),
    "preferred": configured(lambda c: c.dynamic_batching.preferred_batch_size.extend([2, 8])),
    "priorities": configured(queue(priority_levels=2, default_priority_level=1)),
    "all_versions": both(
        configured(lambda c: c.version_policy.all.SetInParent()), versions("1", "3")
    ),
    "specific_version": configured(lambda c: c.version_policy.specific.versions.append(1)),
    "version_7": versions("7"),
    "zero_warmup": configured(warm_input(zero_data=True)),
    "random_warmup": configured(warm_input(random_data=True)),
    "parameters": written(("name:", 'parameters { key: "k" value { string_value: "v" } }\nname:')),
    "comments_and_commas": written(("max_batch_size: 8", "# eight\nmax_batch_size: 8,")),
    "other_files": lambda folder: (folder / "notes.txt").write_text("kept here"),
    "response_cache_off": written(("name:", "response_cache { enable: false }\nname:")),
    "ensemble": ensemble(),
    "input_reshaped": configured(reshaped("input", (2, 3), (6,)), clears("model_warmup")),
    "output_reshaped": configured(reshaped("output", (2, 2), (4,))),
    "reordered": written(("backend:", 'metric_tags { key: "a" value: "b" }\nbackend:')),
    "sequence": configured(sequence),
    "label": both(
        configured(lambda c: setattr(c.output[0], "label_filename", "labels.txt")),
        lambda folder: (folder / "labels.txt").write_text("a\nb\nc\nd\n"),
    ),
    "one_version_absent": configured(lambda c: c.version_policy.specific.versions.extend([1, 4])),
    "count_negative": configured(group(kind="KIND_CPU", count=-1)),
    "unbatched_warmup": configured(
        unbatched,
        lambda c: c.model_warmup.add(name="one", batch_size=1),
        lambda c: (
            c.model_warmup[0]
            .inputs.add(key="x")
            .value.MergeFrom(
                type(c.model_warmup[0].inputs[0].value)(
                    data_type="TYPE_FP32", dims=[2, 6], zero_data=True
                )
            )
        ),
    ),
    "external_data": external(lambda data: None),
    "ensemble_smaller_batch": ensemble(rows=4),
    "control_int32": configured(control("CONTROL_SEQUENCE_START", 0, 1)),
    "direct_sequence": configured(sequence, lambda c: c.sequence_batching.direct.SetInParent()),
    "queue_rejects": configured(
        lambda c: setattr(
            c.dynamic_batching.default_queue_policy, "default_timeout_microseconds", 9
        )
    ),
    "rate_limited": configured(
        lambda c: c.instance_group[0].rate_limiter.resources.add(name="R", count=2)
    ),
    "host_policy": configured(lambda c: setattr(c.instance_group[0], "host_policy", "cpu")),
    "optional_input": configured(lambda c: setattr(c.input[0], "optional", True)),
    "ragged": configured(lambda c: setattr(c.input[0], "allow_ragged_batch", True)),
    "hexadecimal": written(("max_batch_size: 8", "max_batch_size: 0x8")),
    "single_quotes": written(('"logits"', "'logits'")),
    "angle_brackets": written(("input {", "input <"), ("dims: [6]\n}", "dims: 6\n>")),
    # What a server refuses.
    "batch_text": written(("max_batch_size: 8", 'max_batch_size: "8"')),
    "batch_fraction": written(("max_batch_size: 8", "max_batch_size: 8.5")),
    "unknown_kind": written(("KIND_CPU", "CPU")),
    "unclosed": in_text('name: "unclosed" input {'),
    "unbatched_empty_reshape": configured(unbatched, reshaped("input", (1,), ())),
    "external_data_missing": external(lambda data: data.unlink()),
    "external_data_short": external(lambda data: data.write_bytes(data.read_bytes()[:-8])),
    "ensemble_larger_batch": ensemble(rows=16),
    "ensemble_other_dtype": ensemble(dtype="TYPE_FP64"),
    "ensemble_unused_tensor": ensemble(STEP.replace('value: "logits"', 'value: "first"') + STEP),
    "ensemble_unused_input": both(
        ensemble(),
        written(("output {", 'input { name: "z" data_type: TYPE_FP32 dims: [6] }\noutput {')),
    ),
    "ensemble_unmade": ensemble(STEP.replace('value: "logits"', 'value: "other"')),
    "ensemble_of_broken": ensemble(STEP.replace("good", "output_unknown")),
    "ensemble_of_itself": ensemble(STEP.replace("good", "ensemble_of_itself")),
    "control_three_values": configured(control("CONTROL_SEQUENCE_START", 0, 1, 2)),
    "output_twice_other": configured(
        lambda c: c.output.add(name="other", data_type="TYPE_FP32", dims=[4])
    ),
    "negative_gpu": configured(group(kind="KIND_CPU", count=1, gpus=[-1])),
    "broken_text": written(("input {", "input")),
    "unknown_field": written(("max_batch_size", "max_batchsize")),
    "unknown_dtype": written(("TYPE_FP32", "TYPE_FLOAT32")),
    "name_twice": written(("backend:", 'name: "again"\nbackend:')),
    "two_schedulers": written(("dynamic_batching", "sequence_batching { }\ndynamic_batching")),
    "empty_text": in_text(""),
    "no_config": lambda folder: (folder / "config.pbtxt").unlink(),
    "other_name": configured(sets(name="another")),
    "no_backend": configured(clears("backend")),
    "unknown_backend": configured(sets(backend="onnx")),
    "unknown_platform": configured(clears("backend"), sets(platform="onnx")),
    "no_versions": versions(),
    "version_01": versions("01"),
    "version_0": versions("0"),
    "version_word": versions("first"),
    "absent_version": configured(lambda c: c.version_policy.specific.versions.append(4)),
    "no_model_file": lambda folder: (folder / "1" / "model.onnx").unlink(),
    "other_filename": configured(sets(default_model_filename="net.onnx")),
    "not_onnx": lambda folder: (folder / "1" / "model.onnx").write_bytes(b"no graph"),
    "negative_batch": configured(sets(max_batch_size=-1)),
    "batch_in_dims": configured(dims("input", -1, 6), clears("model_warmup")),
    "unbatched_without_batch": configured(unbatched, dims("input", 6)),
    "input_missing": configured(clears("input"), clears("model_warmup")),
    "input_unknown": configured(lambda c: setattr(c.input[0], "name", "y"), clears("model_warmup")),
    "input_surplus": configured(
        lambda c: c.input.add(name="y", data_type="TYPE_FP32", dims=[6]), clears("model_warmup")
    ),
    "input_twice": configured(
        lambda c: c.input.add(name="x", data_type="TYPE_FP32", dims=[6]), clears("model_warmup")
    ),
    "input_other_dtype": configured(
        lambda c: setattr(c.input[0], "data_type", "TYPE_FP16"), clears("model_warmup")
    ),
    "input_no_dtype": configured(lambda c: c.input[0].ClearField("data_type")),
    "input_no_name": configured(lambda c: c.input[0].ClearField("name")),
    "input_no_dims": configured(lambda c: c.input[0].ClearField("dims")),
    "input_dim_zero": configured(dims("input", 0)),
    "input_dim_minus_two": configured(dims("input", -2)),
    "input_dynamic": configured(dims("input", -1), clears("model_warmup")),
    "input_other_size": configured(dims("input", 7), clears("model_warmup")),
    "input_nhwc_of_two_dims": configured(lambda c: setattr(c.input[0], "format", "FORMAT_NHWC")),
    "reshape_of_other_size": configured(reshaped("input", (2, 3), (5,)), clears("model_warmup")),
    "reshape_to_zero": configured(reshaped("input", (6,), (0,)), clears("model_warmup")),
    "output_unknown": configured(lambda c: setattr(c.output[0], "name", "y")),
    "output_other_dtype": configured(lambda c: setattr(c.output[0], "data_type", "TYPE_FP64")),
    "output_other_size": configured(dims("output", 5)),
    "output_dynamic": configured(dims("output", -1)),
    "output_no_dims": configured(lambda c: c.output[0].ClearField("dims")),
    "unbatched_output_fixed": configured(unbatched, dims("output", 1, 4)),
    "preferred_too_large": configured(lambda c: c.dynamic_batching.preferred_batch_size.append(9)),
    "preferred_zero": configured(lambda c: c.dynamic_batching.preferred_batch_size.append(0)),
    "priority_without_default": configured(queue(priority_levels=2)),
    "priority_too_large": configured(queue(priority_levels=2, default_priority_level=3)),
    "priority_policy_too_large": configured(
        queue(priority_levels=2, default_priority_level=1),
        lambda c: c.dynamic_batching.priority_queue_policy.add(key=5),
    ),
    "cpu_with_gpus": configured(group(kind="KIND_CPU", count=1, gpus=[0])),
    "warmup_file_missing": configured(warm_input(input_data_file="nothing")),
    "warmup_file_short": lambda folder: (folder / "warmup" / "0_x").write_bytes(b"1234"),
    "warmup_dynamic": configured(lambda c: setitem(c.model_warmup[0].inputs[0].value.dims, [-1])),
    "warmup_no_source": configured(
        lambda c: c.model_warmup[0].inputs[0].value.ClearField("input_data_file")
    ),
    "warmup_no_dtype": configured(
        lambda c: c.model_warmup[0].inputs[0].value.ClearField("data_type")
    ),
    "warmup_unknown_input": configured(lambda c: setattr(c.model_warmup[0].inputs[0], "key", "y")),
    "warmup_other_dtype": configured(warm_input(data_type="TYPE_FP64", zero_data=True)),
    "warmup_other_dims": configured(
        lambda c: setitem(c.model_warmup[0].inputs[0].value.dims, [5]), warm_input(zero_data=True)
    ),
    "warmup_too_large": configured(warm(lambda w: setattr(w, "batch_size", 9))),
    "warmup_without_batch": configured(warm(lambda w: setattr(w, "batch_size", 0))),
    "label_missing": configured(lambda c: setattr(c.output[0], "label_filename", "labels.txt")),
    "ensemble_without_steps": ensemble(None),
    "ensemble_of_nothing": ensemble(STEP.replace("good", "nobody")),
    "ensemble_other_tensor": ensemble(STEP.replace('key: "x"', 'key: "y"')),
    "control_without_values": configured(control("CONTROL_SEQUENCE_START")),
    # What a server takes although it is wrong.
    "no_output": configured(clears("output")),
    "unbatched_dynamic": configured(unbatched, lambda c: c.dynamic_batching.SetInParent()),
    **MORE,
}


def write_all(good: Path, repository: Path) -> None:
    """One model for each configuration, made of the packaged model ``good``."""
    for name, change in CONFIGURATIONS.items():
        folder = repository / name
        shutil.copytree(good, folder)
        configured(sets(name=name))(folder)
        change(folder)
