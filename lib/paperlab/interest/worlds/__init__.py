"""Generators of histories whose true probabilities are known."""
