"""Find what TensorRT will refuse in a graph, on any machine."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import common

from graphs import store
from graphs.errors import GraphError
from graphs.inlining import inline_functions
from graphs.tensorrt.control_checks import CONTROL_CHECKS
from graphs.tensorrt.model_checks import (
    Found,
    function_checks,
    interface_checks,
    nodes_with_functions,
)
from graphs.tensorrt.node_checks import NODE_CHECKS
from graphs.tensorrt.operators import OPERATORS
from graphs.tensorrt.rules import RULES, Effect
from graphs.tensorrt.sites import Site, sites
from graphs.tensorrt.spans import SUPPORTED, TITLES, Limits, Span, Target
from graphs.tensorrt.type_checks import type_checks

__all__ = ["Violation", "check_tensorrt", "is_known_version"]

_OWN = ("", "ai.onnx")


@dataclass(frozen=True)
class Violation:
    """A place that breaks a rule.

    Attributes:
        rule: Its name in ``graphs.tensorrt.rules``.
        node: The node, or the input, weight or function.
        operator: The node's operator, or ``input``, ``initializer`` or ``function``.
        found: What is there.
        wanted: What the rule asks for.
        hint: What to do about it; may be empty.
        effect: What the builder does with it.
        versions: Of the builder, those that refuse it.
        source: How that is known.
        always: Whether all versions that were asked about refuse it; else some would take it.
    """

    rule: str
    node: str
    operator: str
    found: str
    wanted: str
    hint: str
    effect: Effect
    versions: str
    source: str
    always: bool

    def __str__(self) -> str:
        return (
            f"node {self.node!r} ({self.operator}): found {self.found}, wanted {self.wanted} "
            f"[{self.rule}]"
        )


def check_tensorrt(
    path: Path,
    target: Target = "tensorrt",
    version: str = "",
    ranges: Collection[str] | None = None,
    plugins: Collection[str] = (),
) -> tuple[Violation, ...]:
    """What a builder will refuse, or get wrong, in the model at ``path``, in graph order.

    The graph is read without its weights; functions are inlined and types inferred first. What no
    rule of the table speaks of is not known to be refused, so no finding is no promise.

    Args:
        path: An ONNX file.
        target: The builder.
        version: Its version; empty asks about all that this project supports.
        ranges: Names of the dimensions that have a range; None does not ask for ranges.
        plugins: Operators that plugins give.

    Raises:
        GraphError: If the file cannot be read, or the target or version is none of those known.
    """
    asked = _asked(target, version)
    model = store.load(path)
    found = [*function_checks(model), *_operators(model, plugins)]
    inline_functions(model)
    # Types that contradict each other are among what is looked for, so none are checked here.
    common.ShapeInferencePass(check_type=False, strict_mode=False)(model)
    found += [*interface_checks(model, ranges), *_nodes(model)]
    violations = [_violation(item, RULES[item[0]].limits, target, asked) for item in found]
    limited = [*_availability(model), *type_checks(model)]
    violations += [_violation(item, limits, target, asked) for item, limits in limited]
    return tuple(dict.fromkeys(violation for violation in violations if violation is not None))


def is_known_version(target: Target, version: str) -> bool:
    """Whether the table speaks of a version; an empty one is none."""
    return bool(version) and version in SUPPORTED[target]


def _asked(target: Target, version: str) -> Span:
    if target not in SUPPORTED:
        raise GraphError(
            f"{target!r} is no builder of engines", hint="one of " + ", ".join(SUPPORTED)
        )
    whole = SUPPORTED[target]
    if not version:
        return whole
    if version not in whole:
        raise GraphError(f"nothing is known about {TITLES[target]} {version}, wanted {whole}")
    return Span(version, version + ".0.0.1")


def _nodes(model: ir.Model) -> Iterator[Found]:
    checks = {**NODE_CHECKS, **CONTROL_CHECKS}
    for site in sites(model):
        for rule, (operators, check) in checks.items():
            if site.node.op_type in operators:
                for found in check(site):
                    yield rule, site.name, site.node.op_type, found


def _operators(model: ir.Model, plugins: Collection[str]) -> Iterator[Found]:
    """Operators that are neither ONNX's own, functions, TensorRT's own, nor plugins."""
    functions = {function.name for function in model.functions.values()}
    for node, _ in nodes_with_functions(model):
        known = node.op_type in functions or node.op_type in plugins
        if known or node.op_type.startswith("TRT_"):
            continue
        name = Site(node).name
        if node.op_type not in OPERATORS:
            found = f"{node.domain + '.' if node.domain else ''}{node.op_type}"
            yield "operator-unknown", name, node.op_type, found
        elif node.domain not in _OWN:
            found = f"{node.op_type} of domain {node.domain!r}"
            yield "operator-domain", name, node.op_type, found


def _availability(model: ir.Model) -> Iterator[tuple[Found, Limits]]:
    for site in sites(model):
        limits = OPERATORS.get(site.node.op_type)
        if limits is not None and site.node.domain in _OWN:
            yield ("operator-unsupported", site.name, site.node.op_type, site.node.op_type), limits


def _violation(item: Found, limits: Limits | None, target: Target, asked: Span) -> Violation | None:
    rule, node, operator, found = item
    assert limits is not None
    span = limits.of(target)
    if span is None or not span.meets(asked):
        return None
    about = RULES[rule]
    return Violation(
        rule, node, operator, found, about.wanted, about.hint, about.effect,
        f"{TITLES[target]} {span}", limits.source, span.covers(asked),
    )  # fmt: skip
