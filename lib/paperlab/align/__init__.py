"""Preference alignment: losses on pairs, token weights, a small language model and its tuning."""
