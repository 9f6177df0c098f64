"""Merging: several checkpoints of one architecture become one, without loading them."""

__all__: list[str] = []
