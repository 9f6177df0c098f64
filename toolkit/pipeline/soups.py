"""A soup as a source: scored and averaged once, into a folder that lives as long as the plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from toolkit.errors import RecipeError
from toolkit.merge import MergeOptions
from toolkit.merge.evaluators import Accuracy, Evaluator, Perplexity
from toolkit.merge.soup import SoupMember, SoupOptions, SoupReport, make_soup
from toolkit.progress import Progress, silent
from toolkit.recipe import SoupModel
from toolkit.sources import FactorySource, HuggingFaceSource, Source

__all__ = ["make_soup_of", "soup_source"]


def make_soup_of(
    model: SoupModel, members: list[Source], out: Path, seed: int, progress: Progress = silent
) -> SoupReport:
    """Score ``members`` as ``model`` says and write the average of those that are kept.

    Raises:
        MergeError: If members do not fit together or the scoring data cannot be read.
        RecipeError: If texts are to be scored and the first member has no tokenizer.
    """
    tasted = [SoupMember(member.name, _weights(member), member.load) for member in members]
    options = SoupOptions(model.soup.kind, MergeOptions(seed=seed))
    return make_soup(tasted, _evaluator(model, members[0]), out, options, progress)


def soup_source(model: SoupModel, members: list[Source], report: SoupReport) -> Source:
    """The soup that was written, as a source like its members."""
    first = members[0]
    if isinstance(first, FactorySource):
        return replace(first, name=model.name, weights=_weights_in(report.out))
    assert isinstance(first, HuggingFaceSource)
    return replace(first, name=model.name, folder=report.out)


def _weights(member: Source) -> Path:
    if isinstance(member, FactorySource):
        return member.weights
    assert isinstance(member, HuggingFaceSource)
    return member.folder


def _weights_in(folder: Path) -> Path:
    (weights,) = sorted(folder.glob("*.safetensors"))
    return weights


def _evaluator(model: SoupModel, first: Source) -> Evaluator:
    soup = model.soup
    if soup.accuracy is not None:
        return Accuracy.from_file(soup.accuracy.path)
    assert soup.perplexity is not None
    tokenizer = first.folder / "tokenizer.json" if isinstance(first, HuggingFaceSource) else None
    if tokenizer is None or not tokenizer.is_file():
        raise RecipeError(
            f"soup {model.name!r} is scored by perplexity and {first.name!r} has no fast tokenizer",
            hint="add tokenizer.json, or score by accuracy",
        )
    return Perplexity.from_file(soup.perplexity.path, tokenizer)
