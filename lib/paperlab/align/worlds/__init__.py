"""Generators of preference pairs whose truth is known."""
