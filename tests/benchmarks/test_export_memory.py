from __future__ import annotations

import pytest
from safetensors import safe_open

from benchmarks import export_memory
from toolkit.recipe import load_recipe


@pytest.mark.parametrize("write", [export_memory.write_mlps, export_memory.write_berts])
def test_the_recipe_that_is_measured_is_an_ensemble_of_three(tmp_path, write):
    size = write(tmp_path, quick=True)
    recipe = load_recipe(tmp_path / "recipe.yaml", allow_code=True)
    assert len(recipe.leaves()) == 3
    assert recipe.target == "onnx"
    assert size == sum(path.stat().st_size for path in tmp_path.rglob("*.safetensors"))


def test_most_of_the_mixtral_are_experts(tmp_path):
    size = export_memory.write_mixtral(tmp_path, quick=True)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert recipe.export.experts == "conditionals"
    (layout,) = tmp_path.glob("mixtral/*.safetensors")
    with safe_open(layout, framework="np") as file:
        sizes = {name: file.get_tensor(name).nbytes for name in file.keys()}  # noqa: SIM118
    assert size == layout.stat().st_size
    experts = sum(each for name, each in sizes.items() if ".experts." in name)
    assert experts > size / 2


def test_an_export_that_fails_is_no_measurement(tmp_path):
    (tmp_path / "recipe.yaml").write_text("model: {onnx: missing.onnx}\n")
    with pytest.raises(RuntimeError, match=r"(?s)toolkit export exited with 1:.*missing\.onnx"):
        export_memory.export(tmp_path)
