"""Reinforcement learning for recommendation: one paper a file."""
