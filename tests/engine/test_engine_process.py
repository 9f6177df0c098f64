"""A builder process that dies, hangs or is interrupted; any program can play its part."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from toolkit.engine import EngineOptions, build_engine, process
from toolkit.errors import CapabilityError, EngineError

PHASE = '{"event": "phase", "name": "Timing tactics", "done": 0, "steps": 3}'


@pytest.fixture
def onnx_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("toolkit.engine.build.require", lambda flavour: None)
    path = tmp_path / "model.onnx"
    path.touch()
    return path


def play(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let ``code`` be the builder process; it has announced a phase already."""
    program = f"import os, signal, sys, time\nprint('''{PHASE}''', flush=True)\n{code}"
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", program))


def failed(onnx_file: Path, options: EngineOptions) -> EngineError:
    with pytest.raises(EngineError) as caught:
        build_engine(onnx_file, {}, options, onnx_file.with_name("model.plan"))
    assert list(onnx_file.parent.iterdir()) == [onnx_file]
    return caught.value


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT"])
def test_a_crash_is_an_error_naming_signal_and_phase(
    onnx_file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    play(monkeypatch, f"os.kill(os.getpid(), signal.{name})")
    error = failed(onnx_file, EngineOptions())
    expected = f"the TensorRT-RTX builder crashed (signal {name}) during 'Timing tactics'"
    assert error.message == expected
    assert "the fault is in NVIDIA's builder" in error.hint


def test_a_kill_from_outside_hints_at_memory(
    onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, "os.kill(os.getpid(), signal.SIGKILL)")
    assert "out of memory" in failed(onnx_file, EngineOptions()).hint


def test_an_end_without_an_answer_quotes_its_last_line(
    onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(monkeypatch, "sys.exit('terminate called without an active exception')")
    error = failed(onnx_file, EngineOptions(flavour="tensorrt"))
    assert error.message == (
        "the TensorRT builder crashed (exit code 1) during 'Timing tactics': "
        "terminate called without an active exception"
    )


def test_a_process_that_dies_before_reading_is_a_crash(
    onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-S", "-c", "import os; os._exit(3)"))
    assert "crashed (exit code 3)" in failed(onnx_file, EngineOptions()).message


def test_the_time_limit_ends_the_build(onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, "time.sleep(60)")
    started = time.monotonic()
    error = failed(onnx_file, EngineOptions(time_limit=0.5))
    assert time.monotonic() - started < 30
    assert "was stopped at its time limit of 0.5 s" in error.message
    assert error.hint == "allow more time, or lower the optimization level"


def test_an_interrupt_ends_the_worker_and_leaves_nothing(
    onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = onnx_file.with_name("survived")
    play(monkeypatch, f"time.sleep(1); open({str(marker)!r}, 'w').close()")

    def interrupt(phase: str, done: int, steps: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(
            onnx_file, {}, EngineOptions(), onnx_file.with_name("model.plan"), progress=interrupt
        )
    time.sleep(1.2)
    assert list(onnx_file.parent.iterdir()) == [onnx_file]


def test_the_worker_ends_when_its_parent_does() -> None:
    code = (
        "from toolkit.engine import worker; import time; worker._exit_with_parent(); time.sleep(60)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, timeout=30, check=False
    )
    assert ended.returncode == 1


def test_what_native_code_prints_does_not_mix_with_events() -> None:
    code = (
        "import os\nfrom toolkit.engine import worker\nevents = worker._claim_stdout()\n"
        "os.write(1, b'native')\nevents.write('event\\n')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert (ended.stdout, ended.stderr) == (b"event\n", b"native")


def test_a_failed_load_is_a_lack_of_this_machine(
    onnx_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = '{"event": "failure", "kind": "capability", "message": "m", "hint": "h"}'
    play(monkeypatch, f"print('''{answer}''')")
    with pytest.raises(CapabilityError, match=r"^m$"):
        build_engine(onnx_file, {}, EngineOptions(), onnx_file.with_name("model.plan"))
