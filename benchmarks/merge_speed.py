"""``toolkit merge`` against the floor of reading and writing the files, and against mergekit."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import merge_peer
from benchmarks.measure import interleaved, ratio, spread
from benchmarks.merge_models import FULL, QUICK, write_family
from benchmarks.rows import Row

__all__ = ["CASES", "Case", "floor_command", "merge_command", "run"]

_FLOOR = """
import sys
buffer = bytearray(1 << 20)
view, last = memoryview(buffer), int(sys.argv[2])
with open(sys.argv[1], "wb", buffering=0) as out:
    for number, name in enumerate(sys.argv[3:]):
        with open(name, "rb", buffering=0) as file:
            while count := file.readinto(buffer):
                if number >= last:
                    out.write(view[:count])
"""
PEER_BOUND = 1 / 4
REPEATS = 5


@dataclass(frozen=True)
class Case:
    """One method on a base and fine-tunes.

    Attributes:
        method: ``merge_method``.
        models: The inputs that are read; the first is the base.
        text: The rest of the config.
        bound: Most times the floor.
    """

    method: str
    models: tuple[str, ...]
    text: str
    bound: float

    def config(self) -> str:
        """The config, with names of models relative to the folder it lies in."""
        return f"merge_method: {self.method}\n{self.text}"


def _listed(names: tuple[str, ...], parameters: str) -> str:
    return "models:\n" + "".join(f"- model: {name}\n  parameters: {parameters}\n" for name in names)


_ALL = ("base", "a", "b")
_BASE = "base_model: base\n"
_SPARSE = _BASE + _listed(_ALL[1:], "{weight: 0.5, density: 0.5}")
CASES = (
    Case("linear", _ALL, _listed(_ALL, "{weight: 0.5}"), 3.0),
    Case("slerp", _ALL[:2], _BASE + "models: [{model: a}]\nparameters: {t: 0.4}\n", 4.0),
    Case("task_arithmetic", _ALL, _BASE + _listed(_ALL[1:], "{weight: 0.5}"), 3.5),
    Case("ties", _ALL, _SPARSE, 12.0),
    Case("dare_ties", _ALL, _SPARSE, 10.0),
)


def run(*, quick: bool) -> list[Row]:
    """Merge three bf16 Llamas of 1.3 GB (60 MB when quick) with the whole command.

    The floor is a process too: it reads the files of the same models in pieces of 1 MiB and writes
    those of one of them to a new file, on one thread, from and to the page cache. mergekit runs
    once per method, right after one run of ours, and not at all when quick.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_family(folder, QUICK if quick else FULL, _ALL)
        rows = [Row("size of one model", size / 1e9, "GB")]
        for case in CASES:
            rows += measure(case, folder, quick=quick)
    return rows


def measure(case: Case, folder: Path, *, quick: bool) -> list[Row]:
    """Rows of one method."""
    config = folder / f"{case.method}.yml"
    config.write_text(case.config())
    out = folder / "out"
    ours = _timed_run(merge_command(config, out), out, folder)
    floor = _timed_run(floor_command(folder, case.models), folder / "floor", folder)
    seconds = interleaved({"floor": floor, "ours": ours}, REPEATS)
    found = ratio(seconds["ours"], seconds["floor"])
    bound = None if quick else case.bound
    rows = [
        Row(f"{case.method} / floor", found.median, "x", (found.low, found.high), bound),
        Row(f"{case.method}", statistics.median(seconds["ours"]), "s", spread(seconds["ours"])),
        Row(f"{case.method}: floor", statistics.median(seconds["floor"]), "s",
            spread(seconds["floor"])),
    ]  # fmt: skip
    if not quick:
        rows += _against_mergekit(case.method, config, out, folder, ours)
    return rows


def _against_mergekit(
    method: str, config: Path, out: Path, folder: Path, ours: Callable[[], None]
) -> list[Row]:
    start = time.perf_counter()
    ours()
    between = time.perf_counter()
    _timed_run(merge_peer.command(config, out), out, folder)()
    stop = time.perf_counter()
    own, peer = between - start, stop - between
    return [
        Row(f"{method} / mergekit", own / peer, "x", bound=PEER_BOUND),
        Row(f"{method}: mergekit", peer, "s"),
    ]


def merge_command(config: Path, out: Path) -> list[str]:
    """What a user types."""
    return [str(Path(sys.executable).with_name("toolkit")), "merge", str(config), str(out)]


def _timed_run(command: list[str], out: Path, folder: Path) -> Callable[[], None]:
    def call() -> None:
        if out.is_dir():
            shutil.rmtree(out)
        out.unlink(missing_ok=True)
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)  # fmt: skip

    return call


def floor_command(folder: Path, models: tuple[str, ...]) -> list[str]:
    """A process that reads every weight file of the models, and writes those of the last one."""
    files = [sorted((folder / model).glob("*.safetensors")) for model in models]
    read = [str(path) for paths in files[:-1] for path in paths]
    copied = [str(path) for path in files[-1]]
    return [sys.executable, "-c", _FLOOR, str(folder / "floor"), str(len(read)), *read, *copied]
