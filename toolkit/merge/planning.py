"""From a configuration and headers to a plan; everything that can be refused is refused here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from toolkit.errors import MergeError
from toolkit.merge.alignment import align
from toolkit.merge.config import MergeConfig
from toolkit.merge.groups import Group, Member, short_names, slice_groups, whole_group
from toolkit.merge.layers import depth, is_before_layers, main_stack, split, stack_sizes
from toolkit.merge.methods.copying import Copy
from toolkit.merge.methods.parameters import Resolved
from toolkit.merge.methods.table import MethodEntry, find
from toolkit.merge.models import Library, Model
from toolkit.merge.outputs import element_format, output_config
from toolkit.merge.plan import MergePlan, OutputTensor, Source
from toolkit.merge.settings import Place, check_names, lookup, unused
from toolkit.merge.templates import chat_template
from toolkit.merge.tensors import FLOATS
from toolkit.merge.ties import Ties, find_ties
from toolkit.merge.trimming import check_trimming

__all__ = ["COMPUTED", "make_plan"]

# Buffers that some checkpoints save and others compute; they hold no weights.
COMPUTED = ("rotary_emb.inv_freq", ".position_ids", ".masked_bias")


def make_plan(config: MergeConfig, library: Library, seed: int = 0) -> MergePlan:
    """Plan one document.

    Args:
        config: What to merge.
        library: Opens its models.
        seed: Of random methods.

    Raises:
        MergeError: If the models cannot be merged as asked.
        CheckpointError: If a model's files are damaged.
    """
    entry = find(config.merge_method)
    check_names(config, entry)
    element_format(config.dtype)
    opened = {reference: library[reference] for reference in config.references()}
    aligned = align(config, opened)
    models = aligned.models
    ties = find_ties(list(models.values()))
    planner = _Planner(config, library, seed, entry, models, ties)
    outputs = tuple(planner.sliced() if config.slices else planner.whole())
    if not outputs:
        raise MergeError(f"{planner.donor.label} holds no tensor, so there is nothing to merge")
    check_trimming(outputs)
    written = max(outputs, key=lambda output: (output.dtype in FLOATS, output.nbytes)).dtype
    return MergePlan(
        config.merge_method,
        outputs,
        tuple(planner.unused(outputs)),
        planner.donor,
        models,
        output_config(config, planner.donor, aligned, written, ties),
        tuple(unused(config, entry)),
        files=aligned.files,
        chat_template=_chat_template(config, models),
    )


def _chat_template(config: MergeConfig, models: Mapping[str, Model]) -> str:
    if config.chat_template is None:
        return ""
    folders = [model.folder for model in models.values() if model.folder is not None]
    return chat_template(config.chat_template, folders)


@dataclass(frozen=True)
class _Planner:
    config: MergeConfig
    library: Library
    seed: int
    entry: MethodEntry
    models: Mapping[str, Model]
    ties: Ties

    @property
    def donor(self) -> Model:
        return next(iter(self.models.values()))

    def whole(self) -> Iterator[OutputTensor]:
        """Outputs of a config with ``models``, in the donor's order."""
        group = whole_group(self.config, self.entry)
        names = self._common(group, {m.reference: self._names(m) for m in group.members})
        sizes = stack_sizes(names)
        for name in names:
            found = split(name)
            at = 0.0 if found is None else depth(found.index, sizes[found.stack])
            yield self._output(name, group, [name] * len(group.members), at)

    def sliced(self) -> Iterator[OutputTensor]:
        """Outputs of a config with ``slices``: what precedes the layers, layers, what follows."""
        groups = slice_groups(self.config, self.entry)
        sizes = {ref: stack_sizes(model.tensors) for ref, model in self.models.items()}
        stacks = {ref: main_stack(own, ref) for ref, own in sizes.items()}
        self._check_ranges({ref: sizes[ref][stack] for ref, stack in stacks.items()})
        yield from self._outside(groups[0], stacks, before=True)
        number = 0
        for group in groups:
            for index in range(group.layers or 0):
                yield from self._layer(group, stacks, index, number)
                number += 1
        yield from self._outside(groups[-1], stacks, before=False)

    def _check_ranges(self, counts: Mapping[str, int]) -> None:
        for n, part in enumerate(self.config.slices or ()):
            for source in part.sources:
                if source.layer_range[1] > counts[source.model]:
                    raise MergeError(
                        f"slices[{n}]: layer_range {list(source.layer_range)} of {source.model!r}, "
                        f"which has the layers 0 to {counts[source.model] - 1}"
                    )

    def _names(self, member: Member) -> list[str]:
        names = self.models[member.reference].tensors
        return [name for name in names if not self.ties.follows(name)]

    def _common(self, group: Group, own: Mapping[str, Sequence[str]]) -> list[str]:
        """The names that all members have, the donor's order first.

        Raises:
            MergeError: If a tensor is in some members only.
        """
        order = [self.donor.label, *own]
        names = list(dict.fromkeys(n for ref in order if ref in own for n in own[ref]))
        common = []
        for name in names:
            lacking = [
                m.reference
                for m in group.members
                if self.ties.find(self.models[m.reference], name) is None
            ]
            if not lacking:
                common.append(name)
            elif not name.endswith(COMPUTED):
                having = [reference for reference in own if reference not in lacking]
                raise MergeError(
                    f"tensor {name!r} is in {', '.join(having)} and not in {', '.join(lacking)}; "
                    "merging takes models with the same tensors"
                )
        return common

    def _outside(
        self, group: Group, stacks: Mapping[str, str], *, before: bool
    ) -> Iterator[OutputTensor]:
        own = {}
        for member in group.members:
            stack = stacks[member.reference]
            parts = ((name, split(name)) for name in self._names(member))
            own[member.reference] = [n for n, p in parts if p is None or p.stack != stack]
        for name in self._common(group, own):
            if is_before_layers(name) == before:
                yield self._output(name, group, [name] * len(group.members), 0.0)

    def _layer(
        self, group: Group, stacks: Mapping[str, str], index: int, number: int
    ) -> Iterator[OutputTensor]:
        """All tensors of one layer of the output."""
        found = [
            self._rests(member.reference, stacks[member.reference], member.first + index)
            for member in group.members
        ]
        stack = stacks[self.donor.label]
        for rest in dict.fromkeys(rest for names in found for rest in names):
            lacking = [
                m.reference
                for m, names in zip(group.members, found, strict=True)
                if rest not in names
            ]
            if lacking:
                raise MergeError(f"layer tensor {rest!r} is not in {', '.join(lacking)}")
            name = ".".join(filter(None, (stack, str(number), rest)))
            at = depth(index, group.layers or 1)
            yield self._output(name, group, [names[rest] for names in found], at)

    def _rests(self, reference: str, stack: str, layer: int) -> dict[str, str]:
        """The tensors of one layer of a model: what follows the layer's number, and the name."""
        parts = ((name, split(name)) for name in self.models[reference].tensors)
        return {p.rest: n for n, p in parts if p and (p.stack, p.index) == (stack, layer)}

    def _output(self, name: str, group: Group, names: Sequence[str], at: float) -> OutputTensor:
        sources = []
        for member, own in zip(group.members, names, strict=True):
            model = self.models[member.reference]
            stored = self.ties.find(model, own) or own
            sources.append(Source(member.reference, stored, model.tensors[stored]))
        _check_alike(name, sources)
        shape, dtype = sources[0].tensor.shape, sources[0].tensor.dtype
        if dtype not in FLOATS:
            return OutputTensor(name, dtype, shape, tuple(sources), Copy())
        resolved = self._resolve(name, group, names, at)
        sources += self._fishers(sources, resolved)
        out = element_format(self.config.out_dtype or self.config.dtype)
        method = self.entry.build(resolved)
        return OutputTensor(name, out or self._own_dtype(sources), shape, tuple(sources), method)

    def _own_dtype(self, sources: Sequence[Source]) -> str:
        donors = [s for s in sources if s.model == self.donor.label]
        return (donors or sources)[0].tensor.dtype

    def _resolve(self, name: str, group: Group, names: Sequence[str], at: float) -> Resolved:
        shared = {p.name: lookup(p, group.shared, Place(name, at)) for p in self.entry.shared}
        members, origin = group.members, int(group.origin)
        per_model = []
        for member, own in zip(members[origin:], names[origin:], strict=True):
            places = ((member.where, member.settings), *group.shared)
            per_model.append(
                {
                    p.name: lookup(p, places, Place(own, at), member.reference)
                    for p in self.entry.per_model
                }
            )
        labels = short_names([member.reference for member in members[origin:]])
        return Resolved(name, shared, labels, tuple(per_model), group.origin, self.seed)

    def _fishers(self, sources: Sequence[Source], resolved: Resolved) -> list[Source]:
        """The Fisher diagonals that go with the models, for the method that takes them."""
        if "fisher" not in self.entry.parameters:
            return []
        found = []
        for source, values in zip(sources, resolved.per_model, strict=True):
            diagonal = self.library[values["fisher"]]
            tensor = diagonal.tensors.get(source.name)
            if tensor is None or tensor.shape != source.tensor.shape:
                has = "no such tensor" if tensor is None else f"shape {list(tensor.shape)}"
                raise MergeError(
                    f"Fisher diagonal {diagonal.label}: {has} for {source.name!r} of shape "
                    f"{list(source.tensor.shape)}"
                )
            found.append(Source(diagonal.label, source.name, tensor))
        return found

    def unused(self, outputs: Sequence[OutputTensor]) -> Iterator[tuple[str, str, str]]:
        """Input tensors that go nowhere, each with the reason."""
        used = {(source.model, source.name) for o in outputs for source in o.sources}
        operands = {model for model, _ in used}
        for reference, model in self.models.items():
            for name in model.tensors:
                if (reference, name) not in used:
                    yield reference, name, self._reason(name, merged=reference in operands)

    def _reason(self, name: str, *, merged: bool) -> str:
        if self.ties.follows(name):
            return f"tied to {self.ties.embedding}"
        if not merged:
            return "the model gives config and tokenizer only"
        if name.endswith(COMPUTED):
            return "a computed buffer that not every model saves"
        return "in no slice"


def _check_alike(name: str, sources: Sequence[Source]) -> None:
    shapes = {source.model: source.tensor.shape for source in sources}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{list(shape)} in {model}" for model, shape in shapes.items())
        vocabulary = any(part in name for part in ("embed", "head", "wte"))
        hint = "if the vocabularies differ, set tokenizer_source to union, base or a model"
        raise MergeError(
            f"tensor {name!r} has shape {found}; merging takes models of one architecture",
            hint=hint if vocabulary else "",
        )
    kinds = {source.tensor.dtype for source in sources}
    if len(kinds) > 1 and kinds - set(FLOATS):
        raise MergeError(f"tensor {name!r} has types that cannot be mixed: {sorted(kinds)}")
