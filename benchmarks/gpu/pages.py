"""One page of results, a section for each benchmark that writes it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["put_section"]


def put_section(page: Path, title: str, text: str) -> None:
    """Replace the section called ``title``, or append it; the other sections stay."""
    old = page.read_text() if page.is_file() else "# Results on a GPU\n"
    head, *sections = old.split("\n## ")
    made = f"{title}\n\n{text.strip()}\n"
    titles = [section.partition("\n")[0] for section in sections]
    if title in titles:
        sections[titles.index(title)] = made
    else:
        sections.append(made)
    page.write_text("\n\n## ".join(part.strip() for part in (head, *sections)) + "\n")
