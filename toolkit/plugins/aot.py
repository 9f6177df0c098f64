"""Operators registered with TensorRT whose kernels it puts into the engine (from 10.9 on).

``tensorrt.plugin`` takes a function that says what an operator gives and one that gives its kernel,
and reads their signatures. Both are made of the operators' contracts here, so that names, types and
the order of attributes cannot part from them.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

import graphs
from toolkit.errors import CapabilityError, PluginError
from toolkit.plugins.nvrtc import Nvrtc
from toolkit.plugins.ptx import AOT_RELEASE, Gating, Kernel, dispatch_ptx, gating_ptx

__all__ = ["OPERATORS", "register"]

OPERATORS = ("TopKChoice", "GroupedTopKChoice", "ExpertDispatch")

_NAMESPACE = "toolkit"
# Arrays of one number, not numbers: TensorRT up to 10.16 makes a Python number of such an array in
# a way that NumPy 2.4 refuses. The parser gives int32 and float32.
_TYPES = {"int": npt.NDArray[np.int32], "float": npt.NDArray[np.float32]}
# How TensorRT calls the types.
_DTYPES = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16", "int64": "INT64",
           "bool": "BOOL"}  # fmt: skip


def register(
    trt: ModuleType, plugin: ModuleType, nvrtc: Nvrtc, architecture: str
) -> tuple[str, ...]:
    """Register the operators in TensorRT's registry, where its parser finds them.

    Args:
        trt: The module ``tensorrt``.
        plugin: Its module ``tensorrt.plugin``.
        nvrtc: Compiles the kernels when the engine is built.
        architecture: Of the GPU, such as ``compute_90``.

    Returns:
        The names registered, ``namespace::name``.

    Raises:
        CapabilityError: If this TensorRT has no plugins of this kind.
    """
    found = tuple(int(part) for part in re.findall(r"\d+", trt.__version__)[:2])
    if found < AOT_RELEASE or not hasattr(plugin, "aot_impl"):
        raise CapabilityError(
            f"TensorRT {trt.__version__} cannot put kernels into an engine; wanted 10.9 or later",
            hint="use engine.plugin: library, or none",
        )
    names = []
    for name in OPERATORS:
        operator = _Operator(trt, plugin, nvrtc, architecture, graphs.CONTRACTS[name])
        operator.register()
        names.append(operator.id)
    return tuple(names)


@dataclass(frozen=True)
class _Operator:
    trt: ModuleType
    plugin: ModuleType
    nvrtc: Nvrtc
    architecture: str
    contract: graphs.Contract

    @property
    def id(self) -> str:
        return f"{_NAMESPACE}::{self.contract.name}"

    def register(self) -> None:
        plugin = self.plugin
        outputs = _tuple_of(*[plugin.TensorDesc] * len(self.contract.outputs))
        result = _tuple_of(str, bytes, plugin.KernelLaunchParams, plugin.SymExprs)
        describe = _signed(self._describe, self._parameters(), outputs)
        ends = [_parameter("outputs", outputs), _parameter("tactic", int)]
        implement = _signed(self._implement, [*self._parameters(), *ends], result)
        self.plugin.register(self.id)(describe)
        self.plugin.aot_impl(self.id)(implement)

    def _parameters(self) -> list[inspect.Parameter]:
        """The inputs and attributes, those that say where to find the plugin left out."""
        inputs = [_parameter(each.name, self.plugin.TensorDesc) for each in self.contract.inputs]
        return inputs + [
            _parameter(each.name, _TYPES[each.type])
            for each in self.contract.attributes
            if each.type in _TYPES
        ]

    def _describe(self, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
        """What the outputs are."""
        sizes = _sizes(self.contract, arguments)
        return tuple(
            self.plugin.from_shape_expr(
                tuple(sizes[dim] for dim in output.shape), self._dtype(output.dtypes[0])
            )
            for output in self.contract.outputs
        )

    def _implement(self, arguments: Mapping[str, Any]) -> tuple[str, bytes, Any, Any]:
        """The kernel, its launch, and the sizes it is told: tokens, and of a dispatch k."""
        tokens = arguments[self.contract.inputs[0].name].shape_expr[0]
        kernel = self._kernel(arguments)
        launch = self.plugin.KernelLaunchParams()
        # A grid of no blocks is an error, and there may be no tokens.
        launch.grid_x = (
            self.plugin.cdiv(self.plugin.max(tokens, 1), kernel.tokens) if kernel.tokens else 1
        )
        launch.block_x = kernel.threads
        launch.shared_mem = kernel.shared
        sizes = [tokens]
        if not kernel.tokens:
            sizes.append(arguments["ids"].shape_expr[1])
        extra = self.plugin.SymIntExprs(len(sizes))
        for place, size in enumerate(sizes):
            extra[place] = self.plugin.SymInt32(size)
        return kernel.name, kernel.ptx, launch, extra

    def _kernel(self, arguments: Mapping[str, Any]) -> Kernel:
        if self.contract.name == "ExpertDispatch":
            experts = _number(arguments["num_experts"])
            return dispatch_ptx(self.nvrtc, self.architecture, int(experts))
        grouped = self.contract.name == "GroupedTopKChoice"
        values: dict[str, Any] = {
            a.name: _number(arguments[a.name]) for a in self.contract.attributes if a.type in _TYPES
        }
        bias = self._name(arguments["bias"].dtype) if grouped else None
        return gating_ptx(
            self.nvrtc,
            self.architecture,
            Gating(**values, grouped=int(grouped)),
            self._name(arguments["logits"].dtype),
            bias,
        )

    def _dtype(self, name: str) -> Any:
        return getattr(self.trt.DataType, _DTYPES[name])

    def _name(self, dtype: Any) -> str:
        """What a type of TensorRT's is called everywhere else.

        Raises:
            PluginError: If the kernels have nothing to do with it.
        """
        for name in _DTYPES:
            if self._dtype(name) == dtype:
                return name
        raise PluginError(f"found {dtype}; the plugin takes {', '.join(_DTYPES)}")


def _tuple_of(*kinds: Any) -> Any:
    """``tuple[...]`` of types that are known when this runs."""
    return types.GenericAlias(tuple, kinds)


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation)


def _signed(
    call: Callable[[Mapping[str, Any]], Any], parameters: Sequence[inspect.Parameter], result: Any
) -> Callable[..., Any]:
    """A function of the parameters that hands them on by name."""
    signature = inspect.Signature(parameters, return_annotation=result)

    def function(*args: Any, **kwargs: Any) -> Any:
        return call(signature.bind(*args, **kwargs).arguments)

    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def _number(attribute: npt.NDArray[np.generic]) -> int | float:
    number: int | float
    (number,) = attribute.tolist()
    return number


def _sizes(contract: graphs.Contract, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The dimensions that contracts name, as numbers and expressions."""
    first = arguments[contract.inputs[0].name].shape_expr
    experts = int(_number(arguments["num_experts"]))
    choices = int(_number(arguments["k"])) if "k" in arguments else first[1]
    return {
        "T": first[0], "k": choices, "T*k": first[0] * choices, "E": experts, "E+1": experts + 1,
    }  # fmt: skip
