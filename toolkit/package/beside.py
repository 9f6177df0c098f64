"""What lies beside the models: how to start a server, a client, and a page about all of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from graphs import describe
from toolkit.bundle import MANIFEST, EngineRecord, Manifest
from toolkit.errors import BundleError, PackageError
from toolkit.package.client_cpp import write_client
from toolkit.package.layout import CONFIG, GRAPH, PLAN, versions_of
from toolkit.package.schema import parse_config
from toolkit.package.staging import replace_text

__all__ = ["MARK", "model_code", "render", "write_beside"]

MARK = "Made by toolkit package"  # files that say so are ours to replace

_FILES = ("serve.sh", "docker-compose.yml", "client.py", "README.md")


@dataclass(frozen=True)
class _Model:
    """One row of the page."""

    config: Any
    versions: tuple[str, ...]
    operators: tuple[str, ...]
    plugin: bool = False  # a library that the server has to load
    hosted: bool = False  # code in the plan, which the server has to allow


def write_beside(repository: Path) -> list[str]:
    """Write or renew them; a file of the user's is left alone.

    Returns:
        A sentence about each that was left alone.
    """
    notes, models = [], _models(repository)
    known = {
        "plugins": [m.config.name for m in models if m.plugin],
        "hosted": [m.config.name for m in models if m.hosted],
        "python": [m.config.name for m in models if m.config.backend == "python"],
    }
    for name in _FILES:
        path = repository / name
        if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
            notes.append(f"{name} is not ours and was left as it is")
            continue
        text = _environment().get_template(f"{name}.j2").render(mark=MARK, models=models, **known)
        replace_text(path, text, executable=name == "serve.sh")
    return notes + write_client(repository, MARK)


def model_code(step: str) -> str:
    """The code of a model of Triton's Python backend: ``tokenizer`` or ``answer``."""
    return _environment().get_template(f"{step}.py.j2").render(mark=MARK)


def _models(repository: Path) -> list[_Model]:
    found = []
    for path in sorted(repository.glob(f"*/{CONFIG}")):
        try:
            config = parse_config(path.read_text(encoding="utf-8"), str(path))
        except (PackageError, UnicodeDecodeError):
            continue  # somebody else's, for --check to say
        versions = versions_of(path.parent)
        newest = path.parent / str(max(versions, default=0)) / GRAPH
        engine = _engine(newest.with_name(MANIFEST))
        plugin = engine is not None and engine.plugin == "library" and not engine.carries_plugins
        hosted = engine is not None and bool(
            engine.carries_plugins or engine.options.get("version_compatible")
        )
        found.append(_Model(config, tuple(map(str, versions)), _needs(newest), plugin, hosted))
    return found


def _engine(manifest: Path) -> EngineRecord | None:
    """What the plan of a version was built with, where it is a plan."""
    if not (manifest.with_name(PLAN).is_file() and manifest.is_file()):
        return None
    try:
        return Manifest.read(manifest).engine
    except BundleError:
        return None  # for --check to say


def _needs(graph: Path) -> tuple[str, ...]:
    """What the server's ONNX Runtime must know: file format and operator sets."""
    if not graph.is_file():
        return ()
    described = describe(graph)
    own = {name.partition("::")[0] for name in described.functions}
    opsets = [f"{name} {v}" for name, v in described.opsets.items() if name not in own]
    return (f"IR {described.ir_version}", *opsets)


def render(template: str, **values: Any) -> str:
    """The text of one of this package's templates."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("toolkit.package", "templates"),
        autoescape=False,  # noqa: S701  (shell, YAML, Python and Markdown; no HTML)
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
