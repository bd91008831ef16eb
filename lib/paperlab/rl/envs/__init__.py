"""Two small worlds with exact truth, as models, Gymnasium environments and logs.

Importing this registers ``UserAuthorFunnel-v0`` and ``LiveAlloc-v0`` with Gymnasium:
``gymnasium.make(id)`` for one, ``gymnasium.make_vec(id, num_envs)`` for a batch.
"""

import gymnasium

from .environments import LiveAlloc, LiveAllocVector, UserAuthorFunnel, UserAuthorFunnelVector
from .exposures import FunnelModel
from .live import LiveModel
from .slate import UserAuthorSlate

__all__ = ["FunnelModel", "LiveAlloc", "LiveAllocVector", "LiveModel"]
__all__ += ["UserAuthorFunnel", "UserAuthorFunnelVector", "UserAuthorSlate"]

for _name in ("UserAuthorFunnel", "LiveAlloc"):
    gymnasium.register(
        f"{_name}-v0",
        entry_point=f"{__name__}:{_name}",
        vector_entry_point=f"{__name__}:{_name}Vector",
    )
