"""The C++ sample, built and run: outputs are Python's bit for bit, mistakes are messages."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from tests.samples import cpp_bundles
from toolkit.bundle import Manifest

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "cpp"
BUILD = SAMPLE / "build" / "release"
FAILED, UNUSABLE, INCAPABLE = 1, 2, 4


def preset(name: str) -> str:
    """Configure and build one of the presets; what CMake said."""
    said = ""
    for command in (["cmake", "--preset", name], ["cmake", "--build", "--preset", name]):
        done = subprocess.run(command, cwd=SAMPLE, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning:" not in done.stderr, done.stderr
        said += done.stdout
    return said


@pytest.fixture(scope="session")
def built(headers) -> str:
    """The sample with its headers, built as its README says; what CMake said."""
    # Two workers of one run must not build in the same folder at once.
    with (SAMPLE / "build" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return preset("release")


@pytest.fixture
def run(built, library):
    """Runs run_ort with one thread and the wheel's library."""

    def call(*arguments, program=(BUILD / "run_ort",), **environment):
        command = [*program, *map(str, arguments)]
        env = {**os.environ, "ONNXRUNTIME_LIBRARY": str(library), **environment}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=env)

    return call


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    pytest.importorskip("sklearn", reason="the digits sample needs scikit-learn")
    return cpp_bundles.digits(SAMPLE.parent / "recipes", tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def decoder(tmp_path_factory):
    return cpp_bundles.decoder(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="session")
def moe(moe_graph, tmp_path_factory):
    return cpp_bundles.moe(moe_graph("mixtral"), tmp_path_factory.mktemp("moe") / "bundle")


@pytest.fixture(scope="session")
def identities(tmp_path_factory):
    return cpp_bundles.identities(tmp_path_factory.mktemp("identities") / "bundle")


def save(folder, feeds):
    folder.mkdir(exist_ok=True)
    for name, array in feeds.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def in_python(bundle, feeds):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(bundle / "model.onnx"), options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def hold_equal(folder, wanted):
    assert {path.stem for path in folder.iterdir()} == set(wanted)
    for name, array in wanted.items():
        found = np.load(folder / f"{name}.npy")
        assert (found.dtype, found.shape) == (array.dtype, array.shape), name
        assert found.tobytes() == np.ascontiguousarray(array).tobytes(), name


def images(rows):
    return {"image": np.random.default_rng(rows).random((rows, 1, 8, 8), dtype=np.float32)}


def compare(run, bundle, feeds, tmp_path, *options):
    done = run(
        bundle, "--feeds", save(tmp_path / "feeds", feeds), "--outputs", tmp_path / "outputs",
        "--threads", 1, *options,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    hold_equal(tmp_path / "outputs", in_python(bundle, feeds))
    return done


@pytest.mark.parametrize("rows", [1, 16, 64])
def test_the_digits_ensemble_is_pythons_bit_for_bit(run, digits, tmp_path, rows):
    compare(run, digits, images(rows), tmp_path)


@pytest.mark.parametrize("step", [(2, 4, 0), (3, 1, 8), (1, 2, 5)])
def test_a_decoder_step_is_pythons_bit_for_bit(run, decoder, tmp_path, step):
    feeds = cpp_bundles.decoder_feeds(Manifest.read(decoder / "manifest.json"), *step)
    assert len(feeds) > 5
    compare(run, decoder, feeds, tmp_path)


@pytest.mark.parametrize("step", [(2, 7, 0), (1, 1, 6)])
def test_a_mixture_of_experts_behind_conditionals_likewise(run, moe, tmp_path, step):
    feeds = cpp_bundles.decoder_feeds(Manifest.read(moe / "manifest.json"), *step)
    compare(run, moe, feeds, tmp_path)


def test_several_workers_at_the_same_time_change_nothing(run, digits, tmp_path):
    options = ("--workers", 3, "--iterations", 20, "--warmup", 2, "--json")
    done = compare(run, digits, images(5), tmp_path, *options)
    said = json.loads(done.stdout)
    assert (said["workers"], said["runs"]) == (3, 60)
    assert said["runtime"] == f"onnxruntime {ort.__version__}"
    order = [said["latency_ms"][name] for name in ("min", "p50", "p90", "p95", "p99", "max")]
    assert order == sorted(order)
    assert 0 < order[0] <= said["latency_ms"]["mean"] <= order[-1]
    assert said["runs_per_second"] > 0


@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (300, 9), (1, 1)])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_dtype_comes_back_as_it_went_in(run, identities, tmp_path, shape, version):
    draw = np.random.default_rng(0)
    size = {name: np.dtype(name).itemsize for name in cpp_bundles.DTYPES}
    feeds = {  # any bits, NaNs included; a bool is 0 or 1
        name: np.frombuffer(draw.bytes(size[name] * shape[0] * shape[1]), name).reshape(shape)
        for name in cpp_bundles.DTYPES
    }
    feeds["bool"] = feeds["uint8"] % 2 == 0
    feeds["scalar"] = np.array(-0.0, np.float32)
    for name, array in feeds.items():
        with (save(tmp_path / "feeds", {}) / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array(file, array, version=version)
    outputs = tmp_path / "deep" / "outputs"
    done = run(identities, "--feeds", tmp_path / "feeds", "--outputs", outputs)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    hold_equal(outputs, {f"{name}_out": array for name, array in feeds.items()})


def npy(header, data=b"\0" * 256, start=b"\x93NUMPY\x01\x00"):
    text = header.encode() + b"\n"
    return start + len(text).to_bytes(2, "little") + text + data


HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 8, 8), }"
BAD_FILES = {
    "empty": (b"", "is no .npy file"),
    "pickle": (b"\x80\x04K\x01.", "is no .npy file"),
    "future": (npy(HEADER, start=b"\x93NUMPY\x04\x00"), "version 4.0, wanted 1.0 to 3.0"),
    "cut": (npy(HEADER)[:40], "ends in its header"),
    "short": (npy(HEADER, b"\0" * 255), "255 bytes of data, but float32[1, 1, 8, 8] is 256"),
    "long": (npy(HEADER, b"\0" * 257), "has 257 bytes of data"),
    "fortran": (npy(HEADER.replace("False", "True")), "Fortran order, wanted C order"),
    "big-endian": (npy(HEADER.replace("<f4", ">f4")), "dtype '>f4', which is not read here"),
    "objects": (npy(HEADER.replace("<f4", "|O")), "dtype '|O', which is not read here"),
    "records": (npy(HEADER.replace("'<f4'", "[('a', '<f4')]")), "holds records"),
    "negative": (npy(HEADER.replace("8, 8", "-8, 8")), "damaged .npy header: a size"),
    "huge": (npy(HEADER.replace("1, 1", "999999999999999999, 0")), "no array that memory holds"),
    "twice": (npy(HEADER.replace(" }", "'shape': (1,), }")), "damaged .npy header: key 'shape'"),
    "unknown": (npy(HEADER.replace("descr", "decsr")), "damaged .npy header: key 'decsr'"),
    "unreadable": (
        npy(HEADER).replace(b"descr", b"\n\xffscr"),
        "damaged .npy header: key '??scr'\n",
    ),
    "absent": (npy("{'descr': '<f4'}"), "damaged .npy header: a key is missing"),
    "after": (npy(HEADER + " 1"), "damaged .npy header: text after"),
    "float64": (npy(HEADER.replace("<f4", "<f8"), b"\0" * 512), "wanted float32 of 4 dimensions"),
    "rank": (npy(HEADER.replace("1, 1, 8, 8", "8, 8")), "wanted float32 of 4 dimensions"),
    "size": (npy(HEADER.replace("1, 1, 8, 8", "1, 1, 4, 16")), "wanted 8 along axis 2"),
    "batch": (npy(HEADER.replace("1, 1", "65, 1"), b"\0" * 16640), "batch is 65 in the feeds, and"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_feed_is_one_message_and_exit_code_2(run, digits, tmp_path, name):
    content, said = BAD_FILES[name]
    (save(tmp_path / "feeds", {}) / "image.npy").write_bytes(content)
    done = run(digits, "--feeds", tmp_path / "feeds", "--outputs", tmp_path / "outputs")
    assert (done.returncode, done.stdout) == (UNUSABLE, "")
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_dimensions_of_one_name_agree_and_sums_add_up(run, decoder, tmp_path):
    feeds = cpp_bundles.decoder_feeds(Manifest.read(decoder / "manifest.json"), 2, 1, 4)
    for name, wrong, said in (
        ("attention_mask", np.ones((2, 4), np.int64), "wanted 5 along axis 1"),
        ("position_ids", np.ones((3, 1), np.int64), "wanted 2 along axis 0 (batch)"),
    ):
        folder = save(tmp_path / name, {**feeds, name: wrong})
        done = run(decoder, "--feeds", folder)
        assert done.returncode == UNUSABLE
        assert said in done.stderr


ARGUMENTS = {
    "no bundle": ([], UNUSABLE, "found 0 bundles, wanted one"),
    "no feeds": (["{bundle}"], UNUSABLE, "no --feeds"),
    "no value": (["{bundle}", "--feeds"], UNUSABLE, "--feeds needs a value: DIR"),
    "no option": (["{bundle}", "--feed", "x"], UNUSABLE, "no option --feed"),
    "no file": (["{bundle}", "--feeds", "nowhere"], UNUSABLE, "nowhere/image.npy cannot be read"),
    "no folder": (["nowhere", "--feeds", "{feeds}"], UNUSABLE, "has no manifest.json"),
    "no runs": (["{bundle}", "--feeds", "{feeds}", "--iterations", "0"], UNUSABLE, "from 1"),
    "no number": (["{bundle}", "--feeds", "{feeds}", "--threads", "2x"], UNUSABLE, "'2x', wanted"),
    "no library": (
        ["{bundle}", "--feeds", "{feeds}", "--library", "./none.so"],
        INCAPABLE,
        "ONNX Runtime cannot be loaded: ./none.so",
    ),
    "another library": (
        ["{bundle}", "--feeds", "{feeds}", "--library", "libm.so.6"],
        INCAPABLE,
        "libm.so.6 is not ONNX Runtime",
    ),
    "no place": (
        ["{bundle}", "--feeds", "{feeds}", "--outputs", "{feeds}/image.npy/x"],
        UNUSABLE,
        "cannot be made",
    ),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_mistake_on_the_command_line_says_what_was_wanted(run, digits, tmp_path, name):
    words, code, said = ARGUMENTS[name]
    feeds = save(tmp_path / "feeds", images(1))
    done = run(*(word.format(bundle=digits, feeds=feeds) for word in words))
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def manifest_with(bundle, folder, old, new):
    shutil.copytree(bundle, folder)
    text = (folder / "manifest.json").read_text()
    assert old in text
    (folder / "manifest.json").write_text(text.replace(old, new, 1))
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('"format": 1', '"format": 2'), "has format 2, wanted 1"),
        (
            ('"name": "logits"', '"name": "scores"'),
            "output scores is float32, model.onnx says none",
        ),
        (('"name": "logits"', '"name": "../logits"'), "output ../logits is float32"),
        (('"inputs"', '"input"'), "is not a manifest: "),
        (("{", ""), "is not a manifest: "),
    ],
)
def test_a_bundle_that_does_not_fit_together_is_refused(run, digits, tmp_path, change, said):
    bundle = manifest_with(digits, tmp_path / "bundle", *change)
    done = run(bundle, "--feeds", save(tmp_path / "feeds", images(1)))
    assert (done.returncode, done.stdout) == (UNUSABLE, "")
    assert said in done.stderr


def test_a_damaged_model_is_exit_code_1_and_a_failed_proof_a_warning(run, digits, tmp_path):
    bundle = manifest_with(digits, tmp_path / "bundle", '"passed"', '"failed"')
    feeds = save(tmp_path / "feeds", images(1))
    done = run(bundle, "--feeds", feeds)
    assert (done.returncode, done.stderr) == (0, "warning: this bundle's proof is 'failed'\n")
    (bundle / "model.onnx").write_bytes(b"\x08\x08no model")
    done = run(bundle, "--feeds", feeds)
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert done.stderr.startswith("error: ")


def test_nothing_leaks(run, built, digits, tmp_path):
    feeds = save(tmp_path / "feeds", images(3))
    wrong = save(tmp_path / "wrong", {"image": np.ones((1, 1, 8, 8))})
    program = (SAMPLE / "build" / "sanitize" / "run_ort",)  # LeakSanitizer's exit code is 23
    if shutil.which("valgrind"):
        kinds = "definite,indirect,possible"
        program = (
            "valgrind", "--quiet", "--leak-check=full", f"--show-leak-kinds={kinds}",
            f"--errors-for-leak-kinds={kinds}", "--error-exitcode=99",
            f"--suppressions={SAMPLE / 'valgrind.supp'}", BUILD / "run_ort",
        )  # fmt: skip
    else:
        preset("sanitize")
    options = ("--outputs", tmp_path / "outputs", "--threads", 1, "--workers", 2)
    done = run(digits, "--feeds", feeds, *options, program=program)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    done = run(digits, "--feeds", wrong, program=program)
    assert done.returncode == UNUSABLE, done.stderr


def test_the_tensorrt_program_compiles_where_its_headers_are(built, run, digits, tmp_path):
    (said,) = [line for line in built.splitlines() if "run_trt: " in line]
    if "left out" in said:
        pytest.skip(said.removeprefix("-- "))
    objects = {path.name for path in BUILD.glob("CMakeFiles/run_trt.dir/*.o")}
    assert objects == {"run_trt.cpp.o", "trt_worker.cpp.o"}
    if "not linked" not in said:
        feeds = save(tmp_path / "feeds", images(1))
        done = run(digits, "--feeds", feeds, program=(BUILD / "run_trt",))
        assert done.returncode == UNUSABLE
        assert "has no engine" in done.stderr


def test_a_machine_without_debians_tools_is_told_so(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "dirname").symlink_to(shutil.which("dirname"))
    script = shutil.copy(SAMPLE / "fetch_headers.sh", tmp_path)
    done = subprocess.run(
        [shutil.which("bash"), script],
        capture_output=True, text=True, check=False, env={"PATH": str(tmp_path / "bin")},
    )  # fmt: skip
    assert done.returncode == INCAPABLE
    assert done.stderr.startswith("error: no apt-get here")
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "fetch_headers.sh"}
