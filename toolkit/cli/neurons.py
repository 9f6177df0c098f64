"""What an export says of silent neurons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from toolkit.cli.terminal import table

if TYPE_CHECKING:
    from rich.table import Table

    from toolkit.bundle import LayerRecord, NeuronRecord

__all__ = ["neuron_tables"]


def neuron_tables(record: NeuronRecord | None) -> list[Table | str]:
    """One row for each layer, where any was looked at; and the reason."""
    if record is None:
        return []
    rows = [
        (name, layer.neurons, *_columns(layer), "yes" if layer.skipped else "no")
        for name, layer in record.layers.items()
    ]
    line = f"silent neurons: {escape(record.reason)}"
    if not rows:
        return [line]
    columns = ["layer", "neurons", "silent at 1 token", "pays from", "ms whole, skipping", "skips"]
    return [table(f"Silent neurons, {record.seen}", columns, rows), line]


def _columns(layer: LayerRecord) -> tuple[str, str, str]:
    silent, even = layer.silent.get("1"), (layer.break_even or {}).get("1")
    times = next(iter((layer.milliseconds or {}).values()), None)
    return (
        "" if silent is None else f"{silent:.1%}",
        "" if even is None else "never" if even == 1 else f"{even:.0%}",
        "" if times is None else f"{times[0]:.3g}, {times[1]:.3g}",
    )
