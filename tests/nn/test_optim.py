"""RowAdam is dense Adam at the price of the rows read."""

import torch
from paperlab.data import Batch, Field, Schema
from paperlab.nn.embedding import FeatureEmbedding
from paperlab.nn.optim import RowAdam
from torch.nn import functional as F


def run(sparse: bool, steps: int, checkpoint_at: int | None = None):
    schema = Schema((Field("a", size=200), Field("b", size=3000)))
    torch.manual_seed(0)
    embed = FeatureEmbedding(schema, 4, sparse=sparse, std=0.1)
    optimiser = RowAdam(embed, lr=0.01) if sparse else torch.optim.Adam(embed.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        ids = torch.stack(
            [torch.randint(0, n, (64,), generator=generator) for n in (200, 3000)], 1
        ).int()
        target = torch.randn(64, 2, 4, generator=generator)
        loss = F.mse_loss(embed(Batch(ids, torch.zeros(64, 0), torch.zeros(64, 1))), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step == checkpoint_at:
            weights, state = embed.state_dict(), optimiser.state_dict()
            embed = FeatureEmbedding(schema, 4, sparse=True)
            embed.load_state_dict(weights)
            optimiser = RowAdam(embed, lr=0.01)
            optimiser.load_state_dict(state)
    return embed.state_dict()["table.weight"]


def test_rows_end_where_dense_adam_puts_them():
    dense, rows, start = run(False, 400), run(True, 400), run(True, 0)
    moved = (dense - start).abs().mean()
    assert moved > 0.1
    assert (rows - dense).abs().mean() < 1e-4 * moved
    assert (rows - dense).abs().max() < 2e-3  # weights whose gradient is near eps


def test_a_checkpoint_in_the_middle_changes_nothing():
    difference = (run(True, 60, checkpoint_at=30) - run(True, 60)).abs()
    assert difference.mean() < 1e-7  # a checkpoint settles rows early: the same sums, rounded twice
    assert difference.max() < 1e-3
