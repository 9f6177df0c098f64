"""Runs the program that PyTorch's exporter traced, and shows the values inside it.

The ONNX exporter names values after the nodes of the traced program, so each of these values is
what the value of the same name in the ONNX graph should be: PyTorch's own word, operator by
operator.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Interpreter, Node
from torch.fx.node import map_aggregate

from toolkit.runtime.base import Feeds, Outputs

__all__ = ["ProgramTrace"]

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


class ProgramTrace:
    """A traced program as a function from feeds to any of its values.

    Attributes:
        names: The values it can show, in the order in which they are computed.
    """

    def __init__(
        self,
        program: ExportedProgram,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        lifted: bool = True,
    ) -> None:
        """Take a program over.

        Args:
            program: The traced program.
            inputs: Names of its user inputs, in order.
            outputs: Names of its user outputs, in order; they replace the program's own names.
            lifted: Whether every float becomes float64, casts and weights included; otherwise
                the program runs as it was traced.
        """
        self._program = program
        self._inputs = tuple(inputs)
        self._lifted = lifted
        specs = program.graph_signature.output_specs
        user = [spec.arg.name for spec in specs if spec.kind == OutputKind.USER_OUTPUT]
        self._outputs = dict(zip(outputs, user, strict=True))
        computed = [node.name for node in program.graph.nodes if _gives_a_tensor(node)]
        self.names = (*computed, *(name for name in outputs if name not in computed))

    def __call__(self, feeds: Feeds, wanted: Collection[str]) -> Outputs:
        """Run once and keep the tensors named in ``wanted``; other values have no array."""
        aliases: dict[str, list[str]] = {}
        for name in wanted:
            aliases.setdefault(self._outputs.get(name, name), []).append(name)
        run = _Keeping(self._program, aliases, lifted=self._lifted)
        with torch.inference_mode():
            run.run(*self._arguments(feeds))
        return run.kept

    def _arguments(self, feeds: Feeds) -> list[Any]:
        """One argument for each placeholder: weights as they are, feeds by position."""
        program, given = self._program, iter(self._inputs)
        found: list[Any] = []
        for spec in program.graph_signature.input_specs:
            if spec.kind == InputKind.USER_INPUT:
                array = np.ascontiguousarray(feeds[next(given)])
                found.append(torch.from_numpy(array))
            else:
                target = str(spec.target)
                weights: Mapping[str, Any] = program.state_dict
                found.append(weights[target] if target in weights else program.constants[target])
        return found


def _gives_a_tensor(node: Node) -> bool:
    return node.op == "call_function" and isinstance(node.meta.get("val"), torch.Tensor)


class _Keeping(Interpreter):
    """Keeps the tensors that are asked for, as arrays under their names."""

    def __init__(
        self, program: ExportedProgram, aliases: Mapping[str, Sequence[str]], *, lifted: bool
    ) -> None:
        super().__init__(program.graph_module, garbage_collect_values=True)
        # A failing node is reported by the caller; the interpreter's dump of it would be printed.
        self.extra_traceback = False
        self.kept: Outputs = {}
        self._aliases = aliases
        self._lifted = lifted

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, torch.Tensor) and n.name in self._aliases:
            # Copied at once: a later node of the program may work in place.
            array = result.to(torch.float32) if result.dtype is torch.bfloat16 else result
            for name in self._aliases[n.name]:
                self.kept[name] = array.detach().clone().numpy()
        return result

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._lifted:
            return super().call_function(target, args, kwargs)
        lifted = map_aggregate((args, kwargs), _lift)
        return super().call_function(target, *lifted)


def _lift(value: Any) -> Any:
    """Float64 for every narrower float: tensors, and dtypes that a cast asks for."""
    if isinstance(value, torch.Tensor) and value.dtype in _FLOATS:
        return value.double()
    return torch.float64 if isinstance(value, torch.dtype) and value in _FLOATS else value
