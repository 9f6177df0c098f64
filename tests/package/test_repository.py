"""What a bundle becomes in a model repository, and what is refused."""

from __future__ import annotations

import os
import subprocess

import numpy as np
import pytest

from toolkit.errors import IntegrityError, PackageError, ParityError
from toolkit.package import PackageOptions, check_repository, package_triton
from toolkit.package import repository as repository_module
from toolkit.package.schema import parse_config


def config_of(model):
    return parse_config((model / "config.pbtxt").read_text(), "config.pbtxt")


def listing(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_repository_appears_whole_and_passes_its_own_check(make_bundle, tmp_path):
    packaged = package_triton(make_bundle(), tmp_path / "models")
    assert listing(tmp_path / "models") == [
        "README.md", "client.cpp", "client.py", "docker-compose.yml",
        "net/1/manifest.json", "net/1/model.onnx",
        "net/config.pbtxt", "net/warmup/0_x", "serve.sh",
    ]  # fmt: skip
    assert (packaged.version, packaged.max_batch_size) == (1, 8)
    assert os.access(tmp_path / "models" / "serve.sh", os.X_OK)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundles", "models"]
    assert check_repository(tmp_path / "models").findings == ()


def test_a_second_bundle_is_the_next_version_and_the_configuration_stays(make_bundle, tmp_path):
    out = tmp_path / "models"
    first = package_triton(make_bundle(), out, PackageOptions(queue_delay=7))
    before = (first.model / "config.pbtxt").read_bytes()
    second = package_triton(make_bundle(), out)
    assert second.version == 2
    assert (first.model / "config.pbtxt").read_bytes() == before
    assert "Versions 1, 2;" in (out / "README.md").read_text()


def test_a_version_that_clients_would_notice_is_refused(make_bundle, tmp_path):
    out = tmp_path / "models"
    package_triton(make_bundle(), out)
    other = make_bundle("other", {"z": ("float32", ("batch", 6))}, shapes={"batch": (1, 2, 3)})
    with pytest.raises(PackageError) as found:
        package_triton(other, out, PackageOptions(name="net"))
    assert found.value.message == (
        "net is there already, and its clients would have to change: max_batch_size is 8, would be"
        " 3; input 'x' would go; input 'z' would be new"
    )
    assert not (out / "net" / "2").exists()


def test_a_failed_proof_is_refused(make_bundle, tmp_path):
    with pytest.raises(ParityError, match="failed its parity proof, so it is not packaged"):
        package_triton(make_bundle(verdict="failed"), tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_changed_file_is_refused(make_bundle, tmp_path):
    bundle = make_bundle()
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(IntegrityError, match=r"model\.onnx has changed"):
        package_triton(bundle, tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("error", [OSError(28, "full"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing(make_bundle, tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(repository_module.shutil, "copyfile", fail)
    wanted = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else PackageError
    with pytest.raises(wanted):
        package_triton(make_bundle(), tmp_path / "a" / "models")
    assert [p.name for p in tmp_path.iterdir()] == ["bundles"]


def test_what_is_no_repository_is_not_written_into(make_bundle, tmp_path):
    bundle = make_bundle()
    with pytest.raises(PackageError, match="is a bundle, wanted a repository"):
        package_triton(bundle, bundle)
    (tmp_path / "models" / "net").mkdir(parents=True)
    with pytest.raises(PackageError, match=r"has no config\.pbtxt, so it is no model"):
        package_triton(bundle, tmp_path / "models")
    (tmp_path / "file").write_text("")
    with pytest.raises(PackageError, match="is a file, wanted a folder"):
        package_triton(bundle, tmp_path / "file")
    with pytest.raises(PackageError, match="cannot be a model's name"):
        package_triton(bundle, tmp_path / "models", PackageOptions(name="../up"))


def test_files_of_the_users_beside_the_models_are_left_alone(make_bundle, tmp_path):
    out = tmp_path / "models"
    out.mkdir()
    (out / "README.md").write_text("mine")
    packaged = package_triton(make_bundle(), out)
    assert (out / "README.md").read_text() == "mine"
    assert packaged.notes == ("README.md is not ours and was left as it is",)


LONG = {"batch": (1, 2, 4), "length": (1, 3, 9)}


@pytest.mark.parametrize(
    ("inputs", "outputs", "shapes", "largest", "dims"),
    [
        ({"x": ("float32", ("batch", "length"))}, {"y": ("batch", "length")}, LONG, 4, [-1]),
        ({"x": ("float32", ("length", "batch"))}, {"y": ("length", "batch")}, LONG, 9, [-1]),
        ({"x": ("float32", (3, 6))}, {"y": (3, 6)}, LONG, 0, [3, 6]),
        ({"x": ("float32", ("batch", 6))}, {"y": ("rows", 6)}, LONG, 0, [-1, 6]),
        (
            {"x": ("float32", ("batch", 6)), "w": ("float32", ("length", 6))},
            {"y": ("batch", 6)}, LONG, 0, [-1, 6],
        ),
        ({"x": ("float32", ("batch", 6))}, {"y": ("batch", 6)}, {"batch": (2, 3, 4)}, 0, [-1, 6]),
    ],
    ids=["batch", "first of two", "static", "other output", "other input", "at least two rows"],
)  # fmt: skip
def test_a_batch_is_what_every_tensor_begins_with(
    make_bundle, tmp_path, inputs, outputs, shapes, largest, dims
):
    packaged = package_triton(make_bundle("net", inputs, outputs, shapes), tmp_path / "models")
    config = config_of(packaged.model)
    assert config.max_batch_size == largest
    assert list(config.input[0].dims) == dims
    assert config.HasField("dynamic_batching") == (largest > 0)
    assert [w.batch_size for w in config.model_warmup] == ([1, largest] if largest else [1])
    assert check_repository(tmp_path / "models").findings == ()


def test_rows_that_change_each_others_answers_are_no_batch(make_bundle, tmp_path):
    law = "PyTorch's own answer depends on the order of the rows"
    packaged = package_triton(make_bundle(law=law), tmp_path / "models")
    assert packaged.max_batch_size == 0
    assert packaged.notes == (f"requests are not joined into batches: {law}",)


def test_one_value_a_row_is_reshaped(make_bundle, tmp_path):
    bundle = make_bundle("net", {"x": ("float32", ("batch",))}, {"y": ("batch",)})
    config = config_of(package_triton(bundle, tmp_path / "models").model)
    for tensor in (config.input[0], config.output[0]):
        assert list(tensor.dims) == [1]
        assert tensor.HasField("reshape")
        assert list(tensor.reshape.shape) == []


def test_warm_up_values_are_valid_ones(make_bundle, tmp_path):
    shapes = {"batch": (1, 2, 4), "length": (0, 50, 90)}
    bundle = make_bundle(
        "net", {"in/put ids": ("int64", ("batch", "length"))}, {"y": ("batch", "length")}, shapes
    )
    model = package_triton(bundle, tmp_path / "models").model
    values = np.fromfile(model / "warmup" / "0_in_put_ids", np.int64)
    assert values.shape == (50,)
    assert values.min() >= 0
    assert values.max() < 10


def test_a_type_that_no_backend_takes_is_refused(make_bundle, tmp_path):
    bundle = make_bundle("net", {"x": ("bfloat16", ("batch", 6))})
    with pytest.raises(PackageError, match="'x' is bfloat16, which Triton's onnxruntime backend"):
        package_triton(bundle, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_the_script_says_what_is_missing(make_bundle, tmp_path):
    package_triton(make_bundle(), tmp_path / "models")
    done = subprocess.run(
        ["/bin/bash", tmp_path / "models" / "serve.sh"],
        env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert "error: no program tritonserver, and TRITON_IMAGE names no image" in done.stderr
