"""Offline learners for discrete actions to stand beside the papers': one method a file."""

from .bcq import BCQ
from .cql import CQL
from .dqn import DQN
from .ranker import MyopicRanker
from .sac import DiscreteSAC

__all__ = ["BCQ", "CQL", "DQN", "DiscreteSAC", "MyopicRanker"]
