"""A Hugging Face folder (``config.json`` and safetensors) as a source, through transformers.

The class is the one ``config.json`` names, or the auto class of the task asked for. Code in the
folder is never run (``trust_remote_code`` stays off) and nothing is downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from toolkit.artifacts import DimRange, Shapes, TensorSpec, span_of
from toolkit.errors import CheckpointError, RecipeError
from toolkit.sources.base import torch_dtype
from toolkit.sources.cached import CachedLogits, cached_inputs, cached_outputs
from toolkit.sources.heads import Head, Pooling, SentenceEmbedding, TokenLogits
from toolkit.sources.library import first_line, leave_file, read_config, transformers_library
from toolkit.sources.seq2seq import CrossCaches, DecoderLogits, Part, part_inputs, part_outputs

__all__ = ["TASKS", "HuggingFaceSource", "read_pooling"]

# Task name: suffixes of the architectures that do it, and transformers' auto class for it.
TASKS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "sequence-classification": (
        ("ForSequenceClassification",),
        "AutoModelForSequenceClassification",
    ),
    "token-classification": (("ForTokenClassification",), "AutoModelForTokenClassification"),
    "masked-lm": (("ForMaskedLM",), "AutoModelForMaskedLM"),
    "causal-lm": (("ForCausalLM", "LMHeadModel"), "AutoModelForCausalLM"),
    "seq2seq-lm": (("ForConditionalGeneration", "MarianMTModel"), "AutoModelForSeq2SeqLM"),
    "sentence-embedding": (("Model",), "AutoModel"),
}


@dataclass(frozen=True)
class HuggingFaceSource:
    """An encoder with a head, a masked or causal language model, or a sentence encoder.

    Attributes:
        name: A short name for messages.
        folder: The checkpoint folder.
        task: A key of ``TASKS``, or ``auto`` to follow ``config.json``'s architecture.
        cache: Whether a causal model takes and gives key-value caches.
        part: Which of its two graphs an encoder-decoder model is here; see
            ``toolkit.sources.seq2seq``.
    """

    name: str
    folder: Path
    task: str = "auto"
    cache: bool = False
    part: Part | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Weights, configuration and tokenizer files."""
        return tuple(sorted(p for p in self.folder.rglob("*") if p.is_file()))

    @property
    def description(self) -> str:
        """Architecture and task."""
        part = "" if self.part is None else f", {self.part}"
        return f"{(self.config.architectures or ['unnamed architecture'])[0]}, {self.head}{part}"

    @cached_property
    def config(self) -> Any:
        """The configuration object of transformers.

        Raises:
            CheckpointError: If the folder or its model type cannot be used.
        """
        return read_config(self.folder)

    @cached_property
    def head(self) -> str:
        """The task, resolved.

        Raises:
            CheckpointError: If ``config.json`` names no architecture that is known here.
            RecipeError: If the task has no cache to ask for, or no parts, or it is not said which.
        """
        found, two = self._resolved, self.encoder_decoder
        if self.cache and found != "causal-lm":
            hint = (
                "its decoder has caches anyway: leave cache out"
                if two
                else ("only causal-lm models have key-value caches")
            )
            raise RecipeError(
                f"{self.name!r} is to have a cache, but its task is {found}", hint=hint
            )
        if two and self.part is None:
            raise RecipeError(
                f"{self.name!r} is an encoder-decoder model, which becomes two graphs, and it is "
                "not said which is wanted",
                hint="part: encoder or part: decoder beside model:, or --part for both in turn",
            )
        if self.part is not None and not two:
            raise RecipeError(
                f"the recipe asks for part: {self.part}, and {self.name!r} is no encoder-decoder "
                f"model: its task is {found}",
                hint="leave part out, or name encoder-decoder models only",
            )
        return found

    @property
    def encoder_decoder(self) -> bool:
        """Whether it becomes two graphs."""
        return self._resolved == "seq2seq-lm"

    @cached_property
    def _resolved(self) -> str:
        if self.task != "auto":
            return self.task
        architecture = (self.config.architectures or [""])[0]
        for task, (suffixes, _) in TASKS.items():
            if architecture.endswith(suffixes):
                return task
        raise CheckpointError(
            f"{self.folder}: architecture {architecture or 'not named in config.json'!r} "
            "has no known head",
            hint="name the task: " + " | ".join(TASKS),
        )

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """``input_ids`` and ``attention_mask``, plus ``token_type_ids`` where the model has types.

        All int64 ``[batch, sequence]``. With a cache see ``toolkit.sources.cached``, for parts
        ``toolkit.sources.seq2seq``.
        """
        if self.head == "seq2seq-lm" and self.part is not None:
            return part_inputs(self.config, self.part)
        if self.head == "causal-lm" and self.cache:
            return cached_inputs(self.config)
        shape = ("batch", "sequence")
        vocab, types = self.config.vocab_size, getattr(self.config, "type_vocab_size", None) or 0
        specs = [
            TensorSpec("input_ids", "int64", shape, low=0, high=vocab),
            TensorSpec("attention_mask", "int64", shape, low=0, high=2, role="mask"),
        ]
        if types > 1:
            specs.append(TensorSpec("token_type_ids", "int64", shape, low=0, high=types))
        return tuple(specs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """``logits`` and caches, or ``sentence_embedding`` and ``last_hidden_state``."""
        if self.head == "seq2seq-lm" and self.part is not None:
            return part_outputs(self.config, self.part)
        if self.head == "causal-lm" and self.cache:
            return cached_outputs(self.config)
        if self.head == "sentence-embedding":
            return ("sentence_embedding", "last_hidden_state")
        return ("logits",)

    @property
    def max_sequence(self) -> int | None:
        """The longest sequence the positions allow; None where they are unbounded.

        RoBERTa's positions start after the padding index, so two of its table are not usable.
        """
        table = getattr(self.config, "max_position_embeddings", None)
        if table is None or table <= 0:
            return None
        offset_types = {"roberta", "xlm-roberta", "camembert", "xlm-roberta-xl", "mpnet"}
        offset = (self.config.pad_token_id or 0) + 1
        return int(table) - (offset if self.config.model_type in offset_types else 0)

    @property
    def other_dimensions(self) -> frozenset[str]:
        """Dimensions that an encoder-decoder model's other part has and this one has not."""
        return frozenset({"sequence", "past_sequence"} if self.part == "encoder" else ())

    def default_shapes(self) -> Shapes:
        """Ranges for ``batch`` and ``sequence`` when the recipe gives none."""
        longest = min(self.max_sequence or 512, 512)
        batch = DimRange(1, 4, 16)
        if self.part is not None:
            source = {"batch": batch, "source": DimRange(1, min(64, longest), longest)}
            past = longest // 2
            new = {
                "sequence": DimRange(1, 1, min(16, longest - past)),
                "past_sequence": DimRange(0, min(64, past), past),
            }
            return source if self.part == "encoder" else {**source, **new}
        if self.cache:
            past = longest // 2
            return {
                "batch": batch,
                "sequence": DimRange(1, min(8, longest - past), longest - past),
                "past_sequence": DimRange(0, min(64, past), past),
            }
        return {"batch": batch, "sequence": DimRange(1, min(128, longest), longest)}

    def check_shapes(self, shapes: Shapes) -> None:
        """Refuse sequences longer than the model's positions.

        Raises:
            RecipeError: If ``sequence``, with what is cached, reaches past ``max_sequence``.
        """
        longest = self.max_sequence
        for dim in self._lengths():
            asked = span_of(dim, shapes).max
            if longest is not None and asked > longest:
                raise RecipeError(
                    f"shapes.{dim} reaches {asked}, but {self.name!r} has {longest} positions",
                    hint=f"{dim.split()[-1]}: [1, {min(128, longest)}, {longest}]",
                )

    def _lengths(self) -> tuple[str, ...]:
        """The dimensions that count positions."""
        if self.part == "encoder":
            return ("source",)
        decodes = self.cache or self.part == "decoder"
        own = "past_sequence + sequence" if decodes else "sequence"
        return (own, "source") if self.part == "decoder" else (own,)

    def load(self, dtype: str = "float32") -> nn.Module:
        """Load weights and head.

        Raises:
            CheckpointError: If the folder lacks weights that the architecture needs; transformers
                would fill them at random.
        """
        _, auto_name = TASKS[self.head]
        auto = getattr(transformers_library(), auto_name)
        try:
            # Eager attention is the plain formula; it exports to standard ops in every opset.
            model, report = auto.from_pretrained(
                self.folder,
                config=self.config,
                dtype=torch_dtype("float32"),
                attn_implementation="eager",
                # Each expert's formula, one by one: what the proof may compare with.
                experts_implementation="eager",
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # reported below, with names and shapes
                output_loading_info=True,
            )
        except (ValueError, OSError, RuntimeError) as error:
            raise CheckpointError(
                f"{self.folder}: transformers cannot load it: {first_line(error)}"
            ) from error
        _check_complete(self.folder, report)
        leave_file(model)
        return self._head(model).to(torch_dtype(dtype)).eval()

    def _head(self, model: nn.Module) -> Head:
        names = tuple(spec.name for spec in self.inputs)
        if self.head == "sentence-embedding":
            return SentenceEmbedding(model, names, read_pooling(self.folder))
        if self.part is not None:
            return (CrossCaches if self.part == "encoder" else DecoderLogits)(model, names)
        if self.cache:
            return CachedLogits(model, names)
        return TokenLogits(model, names, causal=self.head == "causal-lm")


def read_pooling(folder: Path) -> Pooling:
    """How sentence-transformers pools this folder; mean without normalisation if it says nothing.

    Raises:
        CheckpointError: If the folder asks for a pooling that is not mean, cls or max.
    """
    normalise = "Normalize" in _text(folder / "modules.json")
    text = _text(folder / "1_Pooling" / "config.json")
    if not text:
        return Pooling("mean", normalise)
    asked = [key for key, on in json.loads(text).items() if key.startswith("pooling_mode") and on]
    modes = {
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_cls_token": "cls",
        "pooling_mode_max_tokens": "max",
    }
    if len(asked) != 1 or asked[0] not in modes:
        raise CheckpointError(
            f"{folder}: pooling {', '.join(asked) or 'none'} is not one of mean, cls, max"
        )
    return Pooling(modes[asked[0]], normalise)


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _check_complete(folder: Path, report: Mapping[str, Any]) -> None:
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} weights are missing, first {missing[0]!r}",
            hint="a head that was never trained would be random; name another task, or add it",
        )
    mismatched = sorted(map(str, report.get("mismatched_keys", ())))
    if mismatched:
        raise CheckpointError(
            f"{folder}: a weight's shape differs from config.json: {mismatched[0]}"
        )
