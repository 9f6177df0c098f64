"""What may not be in a tracked file: this machine's paths, foreign hosts, large or built files."""

from __future__ import annotations

import re

from tests.repo.sources import ROOT, tracked

# Hosts that are named for a reader to follow. A package index, a hub or a mirror is never one:
# the interpreter's and pip's own settings say where things come from.
ADDRESSES = (
    "arxiv.org",
    "docs.nvidia.com",
    "docs.python.org",
    "git-lfs",  # how the pointer to a large file begins, which checkpoints are searched for
    "git-lfs.github.com/spec",
    "github.com",
    "huggingface.co/docs",
    "hypothesis.readthedocs.io",
    "json-schema.org",
    "keepachangelog.com",
    "netron.app",
    "onnx.ai",
    "semver.org",
    "www.apache.org",
    "www.w3.org",
)
LARGEST = 512 * 1024
_URL = re.compile(r"\b(?:https?|git|ssh|ftp)://([\w./-]+)")
_MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|Users|work)/[\w.]")


def text_lines():
    for path in tracked():
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            yield f"{path}:{number}", line


def test_no_tracked_file_names_a_path_of_somebodys_machine():
    found = [
        f"{where}: {line.strip()}" for where, line in text_lines() if _MACHINE_PATH.search(line)
    ]
    assert not found


def test_addresses_are_those_a_reader_may_follow():
    found = {(where, url) for where, line in text_lines() for url in _URL.findall(line)}
    unknown = sorted((where, url) for where, url in found if not _allowed(url))
    assert not unknown


def _allowed(url: str) -> bool:
    # Names reserved for examples and for the machine itself (RFC 2606, RFC 6761) are nobody's.
    host = url.partition("/")[0]
    reserved = host == "localhost" or host.endswith((".invalid", ".example", ".test"))
    return reserved or any(f"{url}/".startswith(f"{known}/") for known in ADDRESSES)


def test_no_tracked_file_is_large_or_built():
    large = [str(path) for path in tracked() if (ROOT / path).stat().st_size > LARGEST]
    built = [
        str(path)
        for path in tracked()
        if path.suffix in {".pyc", ".plan", ".engine", ".so", ".whl", ".pt", ".pth"}
        and path.parts[0] != "tests"
    ]
    assert not large
    assert not built
