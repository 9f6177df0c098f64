"""One page of results, a section for each benchmark that writes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__all__ = ["put_section"]


def put_section(page: Path, title: str, text: str, order: Sequence[str] = ()) -> None:
    """Replace the section called ``title``; the other sections stay.

    A new one stands before those that come after it in ``order``, otherwise last.
    """
    old = page.read_text(encoding="utf-8") if page.is_file() else "# Results on a GPU\n"
    head, *sections = old.split("\n## ")
    made = f"{title}\n\n{text.strip()}\n"
    titles = [section.partition("\n")[0] for section in sections]
    if title in titles:
        sections[titles.index(title)] = made
    else:
        later = set(order[order.index(title) + 1 :] if title in order else ())
        places = [place for place, other in enumerate(titles) if other in later]
        sections.insert(places[0] if places else len(sections), made)
    page.write_text(
        "\n\n## ".join(part.strip() for part in (head, *sections)) + "\n", encoding="utf-8"
    )
