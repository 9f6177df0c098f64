"""Neurons that say nothing: feed-forward layers whose activation is often exactly zero."""
