"""The validator's findings; that a server agrees is tests/triton/test_validator.py's business."""

from __future__ import annotations

import json

import pytest

from tests.triton.configurations import CONFIGURATIONS
from toolkit.cli import main
from toolkit.errors import PackageError
from toolkit.package import check_repository, package_triton


@pytest.fixture
def models(make_bundle, tmp_path):
    package_triton(make_bundle(), tmp_path / "models")
    return tmp_path / "models"


def check(models, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["package", "--check", str(models), "--json"])
    return exit_.value.code, json.loads(capsys.readouterr().out)


def test_a_changed_graph_is_named_and_is_its_own_exit_code(models, capsys):
    assert check(models, capsys)[0] == 0
    path = models / "net" / "1" / "manifest.json"
    path.write_text(path.read_text().replace('"bytes": ', '"bytes": 1'))
    code, found = check(models, capsys)
    assert code == 5
    assert found["models"] == {"net": True}
    assert found["findings"] == [
        {
            "model": "net",
            "level": "changed",
            "message": "1/model.onnx is not the file of its manifest",
        }
    ]


def test_a_broken_configuration_is_an_error_with_its_place(models, capsys):
    CONFIGURATIONS["unknown_field"](models / "net")
    code, found = check(models, capsys)
    assert code == 1
    assert found["models"] == {"net": False}
    (finding,) = found["findings"]
    assert finding["message"] == (
        'config.pbtxt:4:1: Message type "ModelConfig" has no field named "max_batchsize".'
    )


def test_what_other_backends_read_is_said_to_be_unchecked(models):
    model = models / "net"
    text = (model / "config.pbtxt").read_text()
    text = text.replace("onnxruntime", "tensorrt").replace("model.onnx", "model.plan")
    (model / "config.pbtxt").write_text(text)
    (model / "1" / "model.plan").write_bytes(b"plan")
    report = check_repository(models)
    assert report.findings == ()
    assert report.unchecked == ("net: version 1, which the tensorrt backend reads",)


def test_a_folder_that_is_no_repository_is_said(models, tmp_path):
    with pytest.raises(PackageError, match="is not a folder"):
        check_repository(tmp_path / "nothing")
    with pytest.raises(PackageError, match="is no model repository") as found:
        check_repository(models / "net")
    assert found.value.hint == "give the folder above the model's"


@pytest.mark.parametrize("arguments", [[], ["b"], ["-o", "d"], ["b", "--check", "d"]])
def test_the_command_wants_one_of_two_jobs(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["package", *arguments])
    assert exit_.value.code == 2
    assert "error: invalid value: " in capsys.readouterr().err
