"""Generators of click logs whose true probabilities are known, one a file."""
