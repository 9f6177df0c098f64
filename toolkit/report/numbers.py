"""Numbers as a reader wants them."""

from __future__ import annotations

import re
from math import floor, log10

from markupsafe import Markup, escape

__all__ = [
    "count",
    "dims",
    "error",
    "figure",
    "many",
    "percent",
    "ratio",
    "share",
    "size",
    "unbroken",
]

_THIN = "\N{NARROW NO-BREAK SPACE}"
_SCIENTIFIC = re.compile(r"\b\d\.\d+e[-+]\d+")


def error(value: float | None) -> str:
    """Three digits and an exponent, ``3.21e-07``; a dash for what was not measured."""
    if value is None:
        return "—"
    return "0" if value == 0 else f"{value:.2e}"


def figure(value: float) -> str:
    """Four digits without an exponent, thousands apart: ``0.01234``, ``12.34``, ``12,345``."""
    digits = 0 if value == 0 else max(0, 3 - floor(log10(abs(value))))
    return f"{value:,.{digits}f}"


def ratio(value: float | None) -> str:
    """``1.3 ×``."""
    if value is None:
        return "—"
    return f"{value:.2f}{_THIN}×" if value < 10 else f"{value:,.0f}{_THIN}×"


def count(value: int) -> str:
    """Thousands apart."""
    return f"{value:,}"


def many(number: int, noun: str) -> str:
    """``1 case``, ``12 cases``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def share(part: int, whole: int) -> str:
    """A percentage that says 100 only when all agree."""
    if whole == 0:
        return "—"
    if part == whole:
        return f"100{_THIN}%"
    return f"{min(100 * part / whole, 99.99):.2f}{_THIN}%"


def percent(fraction: float) -> str:
    """A share of a limit."""
    value = 100 * fraction
    if value >= 1000:
        return f"{fraction:,.0f}{_THIN}×"
    return f"{value:.0f}{_THIN}%" if value >= 1 or value == 0 else f"< 1{_THIN}%"


def size(value: int) -> str:
    """Bytes in the largest unit that keeps the figure above one."""
    scaled = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if scaled < 1000 or unit == "GB":
            break
        scaled /= 1000
    return f"{scaled:.0f} {unit}" if unit == "B" else f"{scaled:.1f} {unit}"


def dims(sizes: dict[str, int]) -> str:
    """``batch 4, sequence 128``."""
    return ", ".join(f"{name} {value}" for name, value in sizes.items())


def unbroken(text: str) -> Markup:
    """A sentence, escaped, in which no line ends inside ``3.21e-07``."""
    escaped = str(escape(text))  # a Markup would escape the replacement as well
    return Markup(_SCIENTIFIC.sub(r'<span class="unbroken">\g<0></span>', escaped))  # noqa: S704
