"""Experts in a graph: where they are, their weights one by one, who goes where."""
