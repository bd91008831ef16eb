"""A growing table whose rows are spread over the processes of torch.distributed.

RecIS's layout (arXiv 2509.20883): 65,536 slots of a hash, split evenly over the ranks. Forward:
distinct ids -> their owners (all-to-all) -> lookup there -> vectors back (all-to-all). The backward
pass sends gradients the same ways in the other direction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks
from .id_maps import mix
from .tables import GrowingTable

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SLOTS = 65_536


def slots_of(ranks: int) -> list[int]:
    """Slots of each rank; the first ones have one more where the split is not even."""
    checks.whole(ranks=ranks)
    return [SLOTS // ranks + (rank < SLOTS % ranks) for rank in range(ranks)]


def owner(ids: Int[Tensor, " n"], ranks: int) -> Int[Tensor, " n"]:
    """The rank that holds each id's row."""
    ends = torch.tensor(slots_of(ranks), device=ids.device).cumsum(0)
    return torch.searchsorted(ends, mix(ids, seed=1) % SLOTS, right=True)


def shard(state: dict[str, Tensor], rank: int, ranks: int) -> dict[str, Tensor]:
    """The rows of a `GrowingTable`'s whole ``state_dict`` that a rank holds."""
    mine = owner(state["keys"], ranks) == rank
    return {name: t[mine] if t.ndim else t for name, t in state.items()}


def unshard(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The whole ``state_dict`` of the shards'."""
    return {n: torch.cat([s[n] for s in states]) if t.ndim else t for n, t in states[0].items()}


class ShardedTable(nn.Module):
    """`GrowingTable` over all ranks of the default process group; ``local`` holds this rank's rows.

    Gradients of a row are summed over the occurrences on all ranks and divided by the number of
    ranks (RecIS's "worker"): with each rank's loss a mean over its share of a batch, a step equals
    that of one process on the whole batch. Every rank must look up and go backward as often.
    """

    def __init__(self, local: GrowingTable):
        super().__init__()
        self.local = local

    def forward(self, ids: Int[Tensor, "*n"], admit: bool = True) -> Float[Tensor, "*n dim"]:
        """Vectors of this rank's ids."""
        ranks = dist.get_world_size()
        distinct, place = ids.flatten().long().unique(return_inverse=True)
        order = owner(distinct, ranks).argsort(stable=True)
        sent = owner(distinct, ranks).bincount(minlength=ranks)
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent)
        sent, received = sent.tolist(), received.tolist()
        theirs = distinct.new_empty(sum(received))
        dist.all_to_all_single(theirs, distinct[order], received, sent)
        vectors = _Exchange.apply(self.local(theirs, admit), received, sent)
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        return F.embedding(back[place].view(ids.shape), vectors)


class _Exchange(torch.autograd.Function):
    """Vectors to the ranks that asked for them; gradients back, divided by the number of ranks."""

    @staticmethod
    def forward(ctx, vectors, sent, received):
        ctx.splits = sent, received
        got = vectors.new_empty(sum(received), vectors.shape[1])
        dist.all_to_all_single(got, vectors.contiguous(), received, sent)
        return got

    @staticmethod
    def backward(ctx, gradient):
        sent, received = ctx.splits
        total = gradient.new_empty(sum(sent), gradient.shape[1])
        dist.all_to_all_single(total, gradient.contiguous(), sent, received)
        return total / dist.get_world_size(), None, None
