"""Alignment of language models with preferences: one paper a file."""
