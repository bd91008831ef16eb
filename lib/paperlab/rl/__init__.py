"""Reinforcement learning for recommendation, judged where the optimum is known (`paperlab.rl.envs`)."""

from .rlivua import RLIVUA
from .slmgac import SLMGAC

__all__ = ["RLIVUA", "SLMGAC"]
