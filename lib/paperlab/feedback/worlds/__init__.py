"""Worlds of feedback whose probabilities are known."""
