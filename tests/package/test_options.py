"""What may be chosen about a packaged model, derived from the artefact or refused."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.package.test_repository import config_of, listing
from toolkit.bundle import EngineRecord, Manifest, hash_file
from toolkit.errors import PackageError
from toolkit.package import PackageOptions, check_repository, package_texts, package_triton
from toolkit.package import drafts as drafts_module

WHOLE = {"batch": (1, 4, 8), "length": (1, 5, 16)}
TOKENS = {
    "input_ids": ("int64", ("batch", "length")),
    "attention_mask": ("int64", ("batch", "length")),
}
PAST = {
    **TOKENS,
    "past_key_values.0.key": ("int64", ("batch", 2, "past", 3)),
}


def with_engine(bundle, capability="9.0", ranges=(), flavour="tensorrt", **fields):
    """The bundle with a plan, as toolkit build leaves it."""
    (bundle / "model.plan").write_bytes(f"plan for {capability}".encode())
    manifest = Manifest.read(bundle / "manifest.json")
    engine = EngineRecord(
        flavour=flavour, version="10.9", compute_capabilities=(capability,), layers=3,
        profiles=tuple(f"p{number}" for number, _ in enumerate(ranges)), ranges=ranges,
        **fields,
    )  # fmt: skip
    files = {**manifest.files, "model.plan": hash_file(bundle / "model.plan")}
    manifest.model_copy(update={"engine": engine, "files": files}).write(bundle / "manifest.json")
    return bundle


def with_files(bundle, **texts):
    manifest = Manifest.read(bundle / "manifest.json")
    files = dict(manifest.files)
    for stem, text in texts.items():
        name = stem.replace("_", ".", 1)
        (bundle / name).write_text(text)
        files[name] = hash_file(bundle / name)
    manifest.model_copy(update={"files": files}).write(bundle / "manifest.json")
    return bundle


def test_a_plan_is_what_is_served_with_its_profiles_and_its_largest_batch(make_bundle, tmp_path):
    ranges = ({"batch": (1, 2, 6)}, {"batch": (1, 1, 1)})
    packaged = package_triton(with_engine(make_bundle(), ranges=ranges), tmp_path / "models")
    config = config_of(packaged.model)
    assert (config.platform, config.default_model_filename) == ("tensorrt_plan", "model.plan")
    assert config.max_batch_size == 6  # the graph's is 8
    (group,) = config.instance_group
    assert (group.kind, list(group.profile)) == (1, ["0", "1"])
    assert listing(packaged.model / "1") == ["manifest.json", "model.plan"]
    report = check_repository(tmp_path / "models")
    assert report.findings == ()
    (packaged.model / "1" / "model.plan").write_bytes(b"another")
    (finding,) = check_repository(tmp_path / "models").findings
    assert finding.message == "1/model.plan is not the file of its manifest"


def test_plans_of_several_gpus_are_one_model(make_bundle, tmp_path):
    bundle = with_engine(make_bundle())
    other = with_engine(make_bundle("other"), "8.6")
    options = PackageOptions(engines=(other,))
    model = package_triton(bundle, tmp_path / "models", options).model
    found = {each.key: each.value for each in config_of(model).cc_model_filenames}
    assert found == {"9.0": "model.plan", "8.6": "model_sm86.plan"}
    assert (model / "1" / "model_sm86.plan").read_bytes() == b"plan for 8.6"
    assert check_repository(tmp_path / "models").findings == ()
    (model / "1" / "model_sm86.plan").write_bytes(b"another")
    (finding,) = check_repository(tmp_path / "models").findings
    assert finding.message == "1/model_sm86.plan is not the file of its manifest"


def test_plans_of_another_graph_are_refused(make_bundle, tmp_path):
    other = with_engine(make_bundle("other", outputs={"z": ("batch", 6)}), "8.6")
    with pytest.raises(PackageError, match="was built from another graph"):
        package_triton(
            with_engine(make_bundle()), tmp_path / "models", PackageOptions(engines=(other,))
        )
    assert not (tmp_path / "models").exists()


def test_both_are_two_models(make_bundle, tmp_path):
    bundle = with_engine(make_bundle())
    packaged = package_triton(bundle, tmp_path / "models", PackageOptions(artifact="both"))
    assert packaged.models == ("net", "net_plan")
    assert config_of(tmp_path / "models" / "net").backend == "onnxruntime"
    assert config_of(tmp_path / "models" / "net_plan").platform == "tensorrt_plan"


def test_where_the_second_of_two_models_cannot_be_placed_the_first_is_gone(
    make_bundle, tmp_path, monkeypatch
):
    place = drafts_module.place

    def fail(folder, out):
        if out.name == "net_plan":
            raise PackageError("no room")
        place(folder, out)

    monkeypatch.setattr(drafts_module, "place", fail)
    with pytest.raises(PackageError, match="no room"):
        package_triton(
            with_engine(make_bundle()), tmp_path / "models", PackageOptions(artifact="both")
        )
    assert [p.name for p in tmp_path.iterdir()] == ["bundles"]


def test_an_engine_that_triton_does_not_run_is_left_out_or_refused(make_bundle, tmp_path):
    bundle = with_engine(make_bundle(), flavour="tensorrt-rtx")
    packaged = package_triton(bundle, tmp_path / "models")
    assert config_of(packaged.model).backend == "onnxruntime"
    assert "no backend of Triton runs it" in packaged.notes[0]
    with pytest.raises(PackageError, match="Triton runs those of TensorRT only"):
        package_triton(bundle, tmp_path / "more", PackageOptions(artifact="plan"))
    with pytest.raises(PackageError, match="has no engine, wanted one"):
        package_triton(make_bundle("none"), tmp_path / "more", PackageOptions(artifact="plan"))


def test_the_script_wants_the_plugin_of_a_plan_that_needs_it(make_bundle, tmp_path):
    package_triton(with_engine(make_bundle(), plugin="library"), tmp_path / "models")
    script, programs = tmp_path / "models" / "serve.sh", tmp_path / "bin"
    programs.mkdir()
    (programs / "tritonserver").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    (programs / "tritonserver").chmod(0o755)

    def serve(**variables):
        environment = {"PATH": f"{programs}:{os.environ['PATH']}", **variables}
        return subprocess.run(
            ["/bin/bash", script], env=environment, capture_output=True, text=True, check=False
        )

    assert "TOOLKIT_PLUGIN_LIBRARY names no file" in serve().stderr
    (tmp_path / "plugin.so").write_bytes(b"")
    said = serve(TOOLKIT_PLUGIN_LIBRARY=str(tmp_path / "plugin.so")).stdout.split("\n")
    assert f"--backend-config=tensorrt,plugins={tmp_path / 'plugin.so'}" in said
    allowed = "--backend-config=tensorrt,version-compatible=true"
    assert allowed not in said
    compatible = with_engine(make_bundle("later"), options={"version_compatible": True})
    package_triton(compatible, tmp_path / "models")
    said = serve(TOOLKIT_PLUGIN_LIBRARY=str(tmp_path / "plugin.so")).stdout.split("\n")
    assert allowed in said


def test_the_accelerator_has_the_graphs_precision_and_ranges(make_bundle, tmp_path):
    bundle = make_bundle("net", TOKENS, {"y": ("batch", "length")}, WHOLE)
    options = PackageOptions(accelerator="tensorrt")
    config = config_of(package_triton(bundle, tmp_path / "models", options).model)
    (each,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    found = {p.key: p.value for p in each.parameters}
    assert found["precision_mode"] == "FP32"
    assert found["trt_profile_min_shapes"] == "input_ids:1x1,attention_mask:1x1"
    assert found["trt_profile_max_shapes"] == "input_ids:8x16,attention_mask:8x16"
    assert check_repository(tmp_path / "models").findings == ()
    with pytest.raises(PackageError, match="TensorRT runs on GPUs"):
        package_triton(
            bundle, tmp_path / "more", PackageOptions(accelerator="tensorrt", device="cpu")
        )


def test_launches_are_captured_of_plans_whose_launches_are_fixed(make_bundle, tmp_path):
    options = PackageOptions(cuda_graphs=True)
    with pytest.raises(PackageError, match="the graph is what is packaged"):
        package_triton(make_bundle(), tmp_path / "models", options)
    bundle = with_engine(make_bundle())
    config = config_of(package_triton(bundle, tmp_path / "models", options).model)
    specs = config.optimization.cuda.graph_spec
    assert [spec.batch_size for spec in specs] == [1, 8]
    assert [list(each.value.dim) for each in specs[0].input] == [[6]]


def test_launches_that_depend_on_values_are_not_captured(make_bundle, tmp_path, monkeypatch):
    bundle = with_engine(make_bundle())
    from toolkit.package import repository

    described = repository.describe
    monkeypatch.setattr(
        repository,
        "describe",
        lambda path: type(described(path))(
            **{**vars(described(path)), "operators": {"If": 2, "MatMul": 1}}
        ),
    )
    with pytest.raises(PackageError, match="the graph has If, so its launches depend on values"):
        package_triton(bundle, tmp_path / "models", PackageOptions(cuda_graphs=True))


def test_queue_versions_and_instances_are_as_asked(make_bundle, tmp_path):
    options = PackageOptions(preferred=(4, 8), versions=0, instances=3, device="gpu")
    config = config_of(package_triton(make_bundle(), tmp_path / "models", options).model)
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
    assert config.version_policy.WhichOneof("policy_choice") == "all"
    assert (config.instance_group[0].count, config.instance_group[0].kind) == (3, 1)
    with pytest.raises(PackageError, match="a batch of 9 is preferred, and the model takes 8"):
        package_triton(make_bundle(), tmp_path / "more", PackageOptions(preferred=(9,)))


def test_labels_are_those_of_the_bundle_or_of_a_file_of_the_right_length(make_bundle, tmp_path):
    bundle = with_files(make_bundle(), labels_txt="a\nb\nc\nd\ne\nf\n")
    model = package_triton(bundle, tmp_path / "models").model
    assert config_of(model).output[0].label_filename == "labels.txt"
    assert (model / "labels.txt").read_text() == "a\nb\nc\nd\ne\nf\n"
    (tmp_path / "two").write_text("a\nb\n")
    with pytest.raises(PackageError, match=r"two has 2 labels, and no output has as many"):
        package_triton(bundle, tmp_path / "more", PackageOptions(labels=tmp_path / "two"))


@pytest.mark.parametrize(
    ("inputs", "past", "reason"),
    [
        (PAST, (0, 4, 9), ""),
        (PAST, (2, 4, 9), "cannot have one position"),
        ({k: v for k, v in PAST.items() if k != "attention_mask"}, (0, 4, 9), "takes no mask"),
        (TOKENS, (0, 4, 9), "it has none"),
    ],
    ids=["kept", "never one", "no mask", "no caches"],
)
def test_the_server_keeps_caches_where_its_rules_allow(make_bundle, tmp_path, inputs, past, reason):
    outputs = {"logits": ("batch", "length", 5)}
    if len(inputs) > 1 and "past_key_values.0.key" in inputs:
        outputs["present.0.key"] = ("batch", 2, "whole", 3)
    bundle = make_bundle("net", inputs, outputs, {**WHOLE, "past": past})
    manifest = json.loads((bundle / "manifest.json").read_text())
    for record in manifest["inputs"]:
        record["role"] = "mask" if record["name"] == "attention_mask" else "values"
    manifest["outputs"] = [
        {"name": name, "dtype": "int64", "shape": shape} for name, shape in outputs.items()
    ]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    if reason:
        with pytest.raises(PackageError, match=reason):
            package_triton(bundle, tmp_path / "models", PackageOptions(state="server"))
    config = config_of(package_triton(bundle, tmp_path / "models").model)
    kept = [state.input_name for state in config.sequence_batching.state]
    assert kept == ([] if reason else ["past_key_values.0.key"])
    listed = {tensor.name for tensor in (*config.input, *config.output)}
    assert ("present.0.key" in listed) == (bool(reason) and "present.0.key" in outputs)
    assert check_repository(tmp_path / "models").findings == ()


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"x": ("float32", ("batch", 6))}, "takes x, which a text does not give"),
        ({"input_ids": TOKENS["input_ids"]}, "takes no attention_mask"),
        (TOKENS, "has no tokenizer.json"),
        (PAST, "takes caches"),
    ],
    ids=["image", "no mask", "no tokenizer", "caches"],
)
def test_texts_want_a_model_of_texts(make_bundle, tmp_path, inputs, said):
    first = next(iter(inputs))
    bundle = make_bundle("net", inputs, {"y": inputs[first][1]}, {**WHOLE, "past": (0, 4, 9)})
    with pytest.raises(PackageError, match=said):
        package_texts(bundle, tmp_path / "models")
    assert not (tmp_path / "models").exists()
