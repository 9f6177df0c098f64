"""A report as JSON text, and the JSON Schema that such text obeys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.errors import ParityError

if TYPE_CHECKING:
    from toolkit.parity.results import ParityReport

__all__ = ["dump", "load", "schema"]


def dump(report: ParityReport) -> str:
    """Indented JSON with a final newline; fields in the order of the classes."""
    import json  # noqa: PLC0415
    from dataclasses import asdict  # noqa: PLC0415

    return json.dumps(asdict(report), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def load(kind: type[ParityReport], text: str | bytes) -> ParityReport:
    """Validate and read.

    Raises:
        ParityError: Naming the first field that is not as it should be.
    """
    import pydantic  # noqa: PLC0415  (slow to load, and only readers of old reports need it)

    try:
        return pydantic.TypeAdapter(kind).validate_json(text)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the text"
        raise ParityError(
            f"not a parity report: {field}: {first['msg']}",
            hint="run the proof again to write a new one",
        ) from None


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of ``parity.json``."""
    import pydantic  # noqa: PLC0415

    from toolkit.parity.results import ParityReport  # noqa: PLC0415

    described = pydantic.TypeAdapter(ParityReport).json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **described,
        "title": "Parity report",
    }
