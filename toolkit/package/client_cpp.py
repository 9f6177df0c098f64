"""The C++ client that lies beside the models of a repository, in one file.

Triton takes every folder of a repository for a model, so there is no place for a project of several
files; the sources of ``samples/cpp/ask_triton`` are put one after another instead.
"""

from __future__ import annotations

import re
from pathlib import Path

from toolkit.package.sources import read_sources
from toolkit.package.staging import replace_text

__all__ = ["CLIENT", "client_text", "write_client"]

CLIENT = "client.cpp"

# What is used stands before what uses it.
_SOURCES = (
    "failure.hpp", "tensor.hpp", "npy.cpp", "manifest.hpp", "manifest.cpp", "program.hpp",
    "program.cpp", "http.hpp", "http.cpp", "ask_triton.cpp",
)  # fmt: skip
_HEAD = """\
// {mark}. Asks a Triton server for a model's outputs, over HTTP.
//
// With a C++17 compiler and nlohmann/json (Debian: nlohmann-json3-dev):
//
//     c++ -std=c++17 -O2 -pthread client.cpp -o client
//     ./client MODEL/1 --model MODEL --feeds feeds --outputs outputs
//
// feeds/ has NAME.npy for every input that MODEL/1/manifest.json names; --help lists the rest.
"""
_OWN = re.compile(r'^(#include ".*"|#pragma once)\n', re.MULTILINE)


def client_text(mark: str) -> str:
    """The file, which says ``mark`` in its first line."""
    sources = read_sources(_SOURCES)
    parts = [f"\n// {name}\n" + _OWN.sub("", sources[name]) for name in _SOURCES]
    return _HEAD.format(mark=mark) + "".join(parts)


def write_client(repository: Path, mark: str) -> list[str]:
    """Write or renew it; one that somebody has made theirs is left alone.

    Returns:
        A sentence, if it was left alone.
    """
    path = repository / CLIENT
    if path.exists() and mark not in path.read_text(encoding="utf-8", errors="replace"):
        return [f"{CLIENT} is not ours and was left as it is"]
    replace_text(path, client_text(mark))
    return []
