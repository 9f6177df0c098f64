"""Recipes from strangers: no code, no files outside, no flood of memory, one clear error."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.recipe.text import DIGITS, read, refused
from toolkit.errors import RecipeError
from toolkit.recipe import load_recipe, resolved_yaml
from toolkit.recipe.yaml_tree import MAX_BYTES, MAX_DEPTH, MAX_NODES

TEXTS = {
    "bad syntax": (
        "model: [",
        (
            "r.yaml: line 1, column 9: not YAML: expected the node content, but found "
            "'<stream end>' (while parsing a flow node)"
        ),
    ),
    "colon": (
        "model: a: b",
        "r.yaml: line 1, column 9: not YAML: mapping values are not allowed here",
    ),
    "tab": (
        "model:\n\tonnx: a",
        (
            "r.yaml: line 2, column 1: not YAML: found character '\\t' that cannot start any token "
            "(while scanning for the next token)"
        ),
    ),
    "control character": (
        "model: a\x00b",
        (
            "r.yaml: not YAML: unacceptable character #x0000: special characters are not allowed "
            'in "<unicode string>", position 8'
        ),
    ),
    "no character": ('seed: "\\U00ffffff"', "r.yaml: not YAML: chr() arg not in range(0x110000)"),
    "half a character": (
        'seed: "\\ud800"',
        "r.yaml: line 1: text '\\ud800' is not valid Unicode",
    ),
    "two documents": (
        "seed: 1\n---\nseed: 2",
        "r.yaml: line 2: a second document starts, and one was wanted",
    ),
    "alias of itself": (
        "seed: &a [*a]",
        "r.yaml: line 1: alias *a stands for nothing that is complete before it",
    ),
    "alias of nothing": (
        "seed: *a",
        "r.yaml: line 1: alias *a stands for nothing that is complete before it",
    ),
    "long number": ("seed: " + "9" * 5000, "r.yaml: not YAML: a number of 5,000 characters"),
    "empty": ("", "r.yaml is empty, wanted a recipe"),
    "comment only": ("# model\n", "r.yaml is empty, wanted a recipe"),
    "null": ("~", "r.yaml is empty, wanted a recipe"),
    "list": ("- model", "r.yaml: found a list of 1 at the top, wanted a mapping"),
    "text": ("model", "r.yaml: found 'model' at the top, wanted a mapping"),
    "number": ("3", "r.yaml: found 3 at the top, wanted a mapping"),
    "key no text": (
        "model: {checkpoint: a}\n1: 2",
        "r.yaml:2: recipe: found the key 1, wanted text",
    ),
    "key a collection": (
        "model: {checkpoint: a}\n? [a]\n: b",
        "r.yaml:2: recipe: found the key a collection, wanted text",
    ),
    "key twice": (
        "model: {checkpoint: a}\nseed: 1\nseed: 2",
        "r.yaml:3: seed: key is given twice, first on line 2",
    ),
    "inner key twice": (
        "model:\n  checkpoint: a\n  checkpoint: b",
        "r.yaml:3: model.checkpoint: key is given twice, first on line 2",
    ),
    "merge key": (
        "model: {checkpoint: a}\nparity: {<<: {cases: 3}}",
        "r.yaml:2: parity.<<: unknown key",
    ),
    "python object": (
        "model: {checkpoint: a}\nseed: !!python/object/apply:os.system [id]",
        (
            "r.yaml:2: seed: found the tag '!!python/object/apply:os.system', and recipes are "
            "plain data without tags"
        ),
    ),
    "python name": (
        "model: !!python/name:os.system ''",
        (
            "r.yaml:1: model: found the tag '!!python/name:os.system', and recipes are plain data "
            "without tags"
        ),
    ),
    "custom tag": (
        "model: {checkpoint: !env HOME}",
        "r.yaml:1: model.checkpoint: found the tag '!env', and recipes are plain data without tags",
    ),
    "line break in a key": (
        'model: {checkpoint: a}\n"a\\nb": 1',
        "r.yaml:2: 'a\\nb': unknown key",
    ),
    "zero byte in a path": (
        'model: {checkpoint: "a\\0b"}',
        "r.yaml:1: model.checkpoint: found 'a\\x00b', wanted a path of printable characters",
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_text_that_is_no_recipe_gets_one_line(case):
    text, message = TEXTS[case]
    assert refused(text).message == message


def laughs(levels: int, width: int = 10) -> str:
    lines = ["a0: &a0 [x]"]
    for i in range(1, levels):
        aliases = ", ".join([f"*a{i - 1}"] * width)
        lines.append(f"a{i}: &a{i} [{aliases}]")
    return "\n".join(lines)


def test_a_billion_laughs_stop_at_the_limit_of_values():
    tracemalloc.start()
    error = refused(laughs(7))  # a million values, should the limit ever fail
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert error.message == (
        f"r.yaml: line 5: over the limit of {MAX_NODES:,} values, aliases counted in full"
    )
    assert peak < 16 << 20


def test_too_many_values_are_refused():
    message = refused("seed: [" + "1," * MAX_NODES + "]").message
    assert message == "r.yaml: line 1: over the limit of 20,000 values, aliases counted in full"


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_depth_is_refused_without_recursion(opening):
    error = refused(opening * 100_000)
    assert error.message == f"r.yaml: line 1: nested deeper than the limit of {MAX_DEPTH} levels"


def test_depth_is_counted_through_aliases():
    half = MAX_DEPTH // 2 + 2
    nest = "[" * half + "x" + "]" * half
    text = f"a: &a {nest}\nb: {'[' * half}*a{']' * half}"
    assert refused(text).message == (
        f"r.yaml: line 2: nested deeper than the limit of {MAX_DEPTH} levels"
    )


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return path


def test_a_file_over_the_limit_is_not_parsed(tmp_path):
    path = write(tmp_path, "#" * MAX_BYTES + "\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.message == f"{path} is over the limit of 1,048,576 bytes for a recipe"


@pytest.mark.parametrize("filler", ["#", "a", "a: b\n", '"', "'", "&a ", "* ", "- a\n", "%", "|\n"])
def test_a_file_at_the_limit_is_answered_soon(filler):
    text = (filler * MAX_BYTES)[:MAX_BYTES]
    started = time.monotonic()
    refused(text)
    assert time.monotonic() - started < 60


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x0a\xff\xfe")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.message == f"{path} is not UTF-8 text: byte 2 is 0xff"
    assert caught.value.hint == "a recipe is a YAML file, not a model"


def test_a_byte_order_mark_is_no_problem(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbfmodel: {onnx: a.onnx}\n")
    assert load_recipe(path, check_files=False).model.name == "a"


def test_a_missing_recipe_lists_the_ones_there(tmp_path):
    write(tmp_path, DIGITS)
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "x.yaml")
    assert caught.value.message == f"{tmp_path / 'x.yaml'} does not exist"
    assert caught.value.hint == f"{tmp_path} holds r.yaml"
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path)
    assert caught.value.message == f"{tmp_path} is a folder, wanted a recipe file"
    assert caught.value.hint == f"{tmp_path} holds r.yaml"
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "no" / "x.yaml")
    assert caught.value.hint == f"there is no folder {tmp_path / 'no'}"


@pytest.fixture
def place(tmp_path) -> Path:
    """A recipe's folder with a model inside, and secrets outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "net.onnx").write_bytes(b"x")
    folder = tmp_path / "recipe"
    (folder / "runs" / "a").mkdir(parents=True)
    (folder / "net.onnx").write_bytes(b"x")
    (folder / "link").symlink_to(outside)
    (folder / "inner").symlink_to(folder / "runs")
    return folder


def load(folder: Path, model: str, **options):
    return load_recipe(write(folder, f"model: {{{model}}}\n"), **options)


CONFINED = "paths are read against the recipe's folder and stay inside it; name another with --root"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "../outside/net.onnx",
            "'../outside/net.onnx' leads out of {folder} to {outside}/net.onnx",
        ),
        ("runs/../../outside/net.onnx", "leads out of {folder} to {outside}/net.onnx"),
        (
            "link/net.onnx",
            "'link/net.onnx' is a symbolic link that leads out of {folder} to {outside}/net.onnx",
        ),
        ("{outside}/net.onnx", "found the absolute path '{outside}/net.onnx', wanted a relative"),
        ("{folder}/net.onnx", "found the absolute path '{folder}/net.onnx', wanted a relative"),
    ],
)
def test_paths_stay_in_the_recipes_folder(place, path, message):
    names = {"folder": place, "outside": place.parent / "outside"}
    with pytest.raises(RecipeError) as caught:
        load(place, f"onnx: {path.format(**names)}")
    assert message.format(**names) in caught.value.message
    assert caught.value.hint == CONFINED


def test_paths_and_links_inside_are_fine(place):
    assert load(place, "checkpoint: inner/a").model.checkpoint.path == place / "inner" / "a"
    assert load(place, "onnx: runs/../net.onnx").model.onnx.path.samefile(place / "net.onnx")


def test_a_root_given_by_the_user_admits_what_lies_in_it(place):
    top = place.parent
    assert load(place, "onnx: outside/net.onnx", root=top).model.onnx.text == "outside/net.onnx"
    absolute = f"onnx: {top}/outside/net.onnx"
    assert load(place, absolute, root=top).model.onnx.path == top / "outside" / "net.onnx"
    with pytest.raises(RecipeError, match=r"'/etc/passwd' leads out of .* to /etc/passwd"):
        load(place, "onnx: /etc/passwd", root=top)
    with pytest.raises(RecipeError, match=r"'\.\./x' leads out of"):
        load(place, "onnx: ../x", root=top)


@pytest.mark.parametrize(
    ("model", "message", "hint"),
    [
        ("onnx: nat.onnx", "'nat.onnx' does not exist in {folder}, wanted a file", "holds 'inner'"),
        ("checkpoint: a/b", "'a/b' does not exist in {folder}, wanted a folder", "hf download a/b"),
        ("checkpoint: net.onnx", "'net.onnx' is a file, wanted a folder", "kind factory"),
        ("onnx: runs", "'runs' is a folder, wanted a file", ""),
        ("checkpoint: ''", "found '', wanted a path", ""),
        ("checkpoint: 3", "found 3, wanted a path", ""),
    ],
)
def test_files_must_exist_and_be_of_the_right_kind(place, model, message, hint):
    with pytest.raises(RecipeError) as caught:
        load(place, model)
    assert message.format(folder=place) in caught.value.message
    assert hint in caught.value.hint


def test_a_loop_of_links_is_an_error(place):
    (place / "loop").symlink_to(place / "loop")
    with pytest.raises(RecipeError, match="'loop'"):
        load(place, "checkpoint: loop")


def readable_or_refused(text: str) -> None:
    try:
        recipe = read(text)
    except RecipeError as error:
        message = error.message
    else:
        assert read(resolved_yaml(recipe)) == recipe
        return
    assert all(line.isprintable() for line in message.splitlines())


@given(text=st.text(max_size=60))
@example(text='"\\xFG"')
@example(text="- &a\n- *a: b")
@example(text="!!binary a")
@example(text="%YAML 9.9\n---\na")
@example(text="%TAG ! tag:x,2000:\n---\n!a b")
def test_any_text_is_a_recipe_or_a_recipe_error(text):
    readable_or_refused(text)


PIECES = st.sampled_from([
    "model: ", "ensemble: ", "members: ", "checkpoint: a", "onnx: b", "factory: 'a:b'",
    "weights: ", "inputs: ", "shapes: ", "batch", "{", "}", "[", "]", ",", ": ", "- ", "\n",
    "\n  ", "\n    ", "&x ", "*x", "!!str ", "1", "-1", "0.5", ".nan", "1e999", "true", "~",
    "'int64[batch]'", "combine: linear", "kwargs: ", "name: ", "seed: ", "passes: ",
    "target: onnx", "x: ", "<<: ",
])  # fmt: skip


@given(st.lists(PIECES, max_size=40).map("".join))
def test_any_order_of_pieces_is_a_recipe_or_a_recipe_error(text):
    readable_or_refused(text)


VALUES = st.recursive(
    st.sampled_from(["1", "-1", "'a'", "~", "true", ".nan", ".inf", "1e400", "9" * 150, "a", "''"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda v: f"[{', '.join(v)}]")
        | st.dictionaries(
            st.sampled_from(["a", "name", "checkpoint", "type"]), inner, max_size=2
        ).map(lambda v: "{" + ", ".join(f"{key}: {value}" for key, value in v.items()) + "}")
    ),
    max_leaves=4,
)
ENSEMBLE = "ensemble: {{combine: {}, space: {}, output: {}, weights: {}, members: {}}}"
RECIPE = (
    "model: {{{}, name: {}, rename: {}}}\ninputs: {}\nshapes: {}\nexport: {}\npasses: {}\n"
    "target: {}\nengine: {}\nparity: {}\nseed: {}\n"
)


@given(st.lists(VALUES, min_size=15, max_size=15))
def test_any_value_anywhere_is_a_recipe_or_a_recipe_error(values):
    model = ENSEMBLE.format(*values[:5])
    readable_or_refused(RECIPE.format(model, *values[5:]))
