"""Texts in, answers out: tokenizer, model and what its output means, as an ensemble of Triton's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphs import Description, TensorInfo, describe
from toolkit.artifacts import TensorSpec
from toolkit.bundle import Bundle, TensorRecord
from toolkit.caches import is_cache
from toolkit.errors import PackageError
from toolkit.package.artefact import Artefact, artefacts_of
from toolkit.package.beside import model_code
from toolkit.package.config import ensemble_config, plain_config
from toolkit.package.drafts import Draft
from toolkit.package.interface import Interface, ServedTensor, interface_of, served_tensor
from toolkit.package.labels import labels_of
from toolkit.package.options import PackageOptions
from toolkit.package.repository import (
    Packaged,
    add_all,
    draft_of,
    model_name,
    opened,
    row_mixing,
)

__all__ = ["package_texts"]

_TOKENIZER = "tokenizer.json"
_ROLES = {"input_ids": "ids", "attention_mask": "mask", "token_type_ids": "types"}
_ROW, _LENGTH = "rows", "length"


@dataclass(frozen=True)
class _Texts:
    """What is known before anything is written."""

    name: str
    bundle: Bundle
    artefact: Artefact
    interface: Interface
    options: PackageOptions
    roles: Mapping[str, str]
    specs: Mapping[str, TensorSpec]

    @property
    def batch(self) -> str | None:
        return _ROW if self.interface.max_batch_size else None

    def tensor(self, name: str, dtype: str, *dims: int | str) -> ServedTensor:
        """One that a step of ours takes or gives, with a row for each text."""
        return served_tensor(TensorInfo(name, dtype, (_ROW, *dims)), self.batch)

    def faced(
        self, inputs: tuple[ServedTensor, ...], outputs: tuple[ServedTensor, ...]
    ) -> Interface:
        return Interface(self.batch, self.interface.max_batch_size, inputs, outputs)


def package_texts(folder: Path, out: Path, options: PackageOptions | None = None) -> Packaged:
    """Add a bundle as ``NAME`` and, for texts, ``NAME_text``: an ensemble of three steps.

    ``NAME_tokenizer`` runs the bundle's own tokenizer, ``NAME_answer`` turns logits into a label
    and its probability, or into tokens. A sentence embedding needs no third step. They run in
    Triton's Python backend, whose Python must have the package ``tokenizers``.

    Raises:
        BundleError: If ``folder`` is no bundle.
        IntegrityError: If its files differ from its manifest.
        ParityError: If it did not pass its proof.
        PackageError: If its inputs do not come from a text, or it cannot be packaged.
    """
    options = options or PackageOptions()
    if options.artifact == "both":
        raise PackageError(
            "texts go to one model, and both graph and plan are asked for",
            hint="--artifact onnx or --artifact plan",
        )
    bundle = opened(folder, out)
    found = describe(bundle.model)
    (artefact,), notes = artefacts_of(bundle, options)
    name = model_name(bundle, options)
    texts = _look(name, bundle, found, artefact, options)
    model, said = draft_of(name, bundle, found, artefact, options)
    tokenizer = _tokenizer(texts)
    answer, outputs = _answer(texts)
    steps = [
        (tokenizer.name, {"TEXT": "TEXT"}, {each: each for each in texts.roles}),
        (name, {each: each for each in texts.roles}, _model_outputs(texts, answer, outputs)),
    ]
    if answer is not None:
        taken = {tensor.name: tensor.name for tensor in answer.config.input}
        steps.append((answer.name, taken, {tensor.name: tensor.name for tensor in outputs}))
    faced = texts.faced((texts.tensor("TEXT", "string"),), outputs)
    whole = Draft(
        f"{name}_text", ensemble_config(f"{name}_text", faced, steps, options), _note_of(name)
    )
    drafts = [tokenizer, model, *([answer] if answer else []), whole]
    needs = f"{tokenizer.name} needs the Python package tokenizers where the server runs"
    return add_all(out, drafts, [*notes, *said, needs])


def _look(
    name: str, bundle: Bundle, found: Description, artefact: Artefact, options: PackageOptions
) -> _Texts:
    inputs = bundle.manifest.inputs
    caches = [record.name for record in inputs if is_cache(record.name)]
    if caches:
        raise PackageError(
            f"{bundle.folder} takes caches ({caches[0]}), so one request is one step of many",
            hint="client.py MODEL --generate goes on with a text; or export without cache: true",
        )
    roles = {record.name: _ROLES[record.name] for record in inputs if record.name in _ROLES}
    other = [record.name for record in inputs if record.name not in roles]
    if other or "ids" not in roles.values():
        taken = other or [record.name for record in inputs]
        raise PackageError(
            f"{bundle.folder} takes {', '.join(taken)}, which a text does not give",
            hint="leave --pipeline out; it is for models of input_ids and attention_mask",
        )
    if "mask" not in roles.values():
        raise PackageError(
            f"{bundle.folder} takes no attention_mask, so padding would change its answers",
            hint="leave --pipeline out",
        )
    if not (bundle.folder / _TOKENIZER).is_file():
        raise PackageError(
            f"{bundle.folder} has no {_TOKENIZER}, so texts cannot be read",
            hint="put the tokenizer's tokenizer.json beside the weights and export again",
        )
    interface = interface_of(found, artefact.shapes, rows_mix=bool(row_mixing(bundle)))
    specs = {record.name: record.spec() for record in inputs}
    return _Texts(name, bundle, artefact, interface, options, roles, specs)


def _tokenizer(texts: _Texts) -> Draft:
    ids = next(name for name, role in texts.roles.items() if role == "ids")
    length = texts.specs[ids].shape[1]
    span = texts.artefact.shapes[length] if isinstance(length, str) else None
    settings = {
        "inputs": {name: [role, texts.specs[name].dtype] for name, role in texts.roles.items()},
        "shortest": span.min if span else length,
        "longest": span.max if span else length,
        "pad": _pad(texts.bundle),
    }
    given = tuple(texts.tensor(name, texts.specs[name].dtype, _LENGTH) for name in texts.roles)
    faced = texts.faced((texts.tensor("TEXT", "string"),), given)
    return _python(texts, "tokenizer", faced, settings, tokenizer=True)


def _pad(bundle: Bundle) -> int:
    """The id of padding, which masks hide: the tokenizer's, the configuration's, or 0."""
    known = json.loads((bundle.folder / _TOKENIZER).read_text(encoding="utf-8"))
    if known.get("padding"):
        return int(known["padding"].get("pad_id", 0))
    path = bundle.folder / "generation_config.json"
    said = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = said.get("pad_token_id")
    return int(found) if isinstance(found, int) else 0


def _answer(texts: _Texts) -> tuple[Draft | None, tuple[ServedTensor, ...]]:
    """The last step and what the ensemble gives; without one, what the model gives."""
    outputs = {record.name: record for record in texts.bundle.manifest.outputs}
    served = {tensor.name: tensor for tensor in texts.interface.outputs}
    if "sentence_embedding" in outputs:
        return None, (served["sentence_embedding"],)
    logits = outputs.get("logits") or next(iter(outputs.values()))
    labels = labels_of(texts.bundle, texts.options.labels)
    classes = logits.shape[-1]
    known = logits.name == "logits" or len(labels) == classes
    if not isinstance(classes, int) or not known or len(logits.shape) not in {2, 3}:
        return None, tuple(served.values())
    if labels and len(labels) != classes:
        labels = ()
    if len(logits.shape) == 2:
        return _labelling(texts, logits, classes, labels)
    return _speaking(texts, logits)


def _labelling(
    texts: _Texts, logits: TensorRecord, classes: int, labels: tuple[str, ...]
) -> tuple[Draft, tuple[ServedTensor, ...]]:
    given = (
        texts.tensor("LABEL", "string"),
        texts.tensor("SCORE", "float32"),
        texts.tensor("PROBABILITIES", "float32", classes),
    )
    settings = {
        "kind": "label",
        "logits": logits.name,
        "probabilities": _gives_probabilities(texts.bundle),
        "labels": labels or [str(index) for index in range(classes)],
    }
    faced = texts.faced((texts.tensor(logits.name, logits.dtype, classes),), given)
    return _python(texts, "answer", faced, settings), given


def _speaking(texts: _Texts, logits: TensorRecord) -> tuple[Draft, tuple[ServedTensor, ...]]:
    given = (texts.tensor("TOKEN_IDS", "int64", _LENGTH), texts.tensor("LAST_TOKEN", "string"))
    mask = next(name for name, role in texts.roles.items() if role == "mask")
    settings = {"kind": "tokens", "logits": logits.name, "mask": mask}
    taken = (
        texts.tensor(logits.name, logits.dtype, _LENGTH, logits.shape[-1]),
        texts.tensor(mask, texts.specs[mask].dtype, _LENGTH),
    )
    return _python(texts, "answer", texts.faced(taken, given), settings, tokenizer=True), given


def _gives_probabilities(bundle: Bundle) -> bool:
    """Whether the recipe's ensemble combines probabilities; everything else is turned into them."""
    path = bundle.folder / "recipe.yaml"
    return path.is_file() and "space: probabilities" in path.read_text(encoding="utf-8")


def _python(
    texts: _Texts,
    step: str,
    faced: Interface,
    settings: Mapping[str, Any],
    *,
    tokenizer: bool = False,
) -> Draft:
    """A model of Triton's Python backend, on the CPU."""
    name = f"{texts.name}_{step}"
    config = plain_config(name, faced, texts.options)
    config.backend = "python"
    config.instance_group.add(count=texts.options.instances, kind="KIND_CPU")
    if faced.max_batch_size:
        config.dynamic_batching.max_queue_delay_microseconds = texts.options.queue_delay
    path = texts.bundle.folder / _TOKENIZER

    def write(folder: Path) -> None:
        (folder / "model.py").write_text(model_code(step), encoding="utf-8")
        text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
        (folder / "settings.json").write_text(text, encoding="utf-8")
        if tokenizer:
            shutil.copyfile(path, folder / _TOKENIZER)

    return Draft(name, config, write)


def _model_outputs(
    texts: _Texts, answer: Draft | None, outputs: tuple[ServedTensor, ...]
) -> dict[str, str]:
    wanted = {tensor.name for tensor in (answer.config.input if answer else outputs)}
    return {t.name: t.name for t in texts.interface.outputs if t.name in wanted}


def _note_of(name: str) -> Callable[[Path], None]:
    """Git keeps no empty folder, and an ensemble's version has nothing else in it."""

    def write(folder: Path) -> None:
        text = f"The steps of this ensemble stand in its configuration; they begin with {name}.\n"
        (folder / "README.txt").write_text(text, encoding="utf-8")

    return write
