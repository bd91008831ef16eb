"""One lookup gives every field its vector, and target attention its events."""

import pytest
import torch
from paperlab.data import Batch, Field, Schema
from paperlab.nn.embedding import FeatureEmbedding
from paperlab.nn.optim import RowAdam
from torch import Tensor

SCHEMA = Schema(
    (
        Field("user", size=6),
        Field("item", size=9),
        Field("cat", size=4),
        Field("price", "numeric"),
        Field("items", "sequence", length=5, shares="item"),
        Field("cats", "sequence", length=5, shares="cat"),
    )
)


def batch(rows: int = 8, steps: int = 5) -> Batch:
    draw = torch.Generator().manual_seed(0)

    def ints(high, *shape):
        return torch.randint(1, high, shape, generator=draw, dtype=torch.int32)

    ids = torch.cat([ints(6, rows, 1), ints(9, rows, 1), ints(4, rows, 1)], 1)
    history = torch.stack([ints(9, rows, steps), ints(4, rows, steps)], 2)
    for row in range(rows):
        history[row, : row % (steps + 1)] = 0  # row 5 is empty
    return Batch(ids, torch.randn(rows, 1, generator=draw), torch.ones(rows, 1), history)


@pytest.fixture
def embed() -> FeatureEmbedding:
    torch.manual_seed(0)
    return FeatureEmbedding(SCHEMA, 3, std=1.0)


def table(embed: FeatureEmbedding, start: int, ids: Tensor) -> Tensor:
    return embed.table.weight[start + ids.long()]


def test_fields_are_looked_up_and_histories_averaged(embed):
    b = batch()
    out = embed(b)
    assert out.shape == (8, 6, 3)
    for k, start in enumerate((0, 6, 15)):
        assert torch.equal(out[:, k], table(embed, start, b.ids[:, k]))
    torch.testing.assert_close(out[:, 3], b.numeric * embed.numeric)
    for row in range(8):
        real = b.history[row, b.history[row, :, 0] > 0]
        for k, start in ((4, 6), (5, 15)):
            want = table(embed, start, real[:, k - 4]).mean(0) if len(real) else torch.zeros(3)
            torch.testing.assert_close(out[row, k], want)


def test_events_and_target_stand_in_the_same_tables(embed):
    b = batch()
    events, target, mask, others = embed.sequence(b)
    assert (embed.d_events, embed.d_others) == (6, 6)
    assert events.shape == (8, 5, 6)
    assert torch.equal(mask, b.history[..., 0] > 0)
    assert torch.equal(events[..., :3], table(embed, 6, b.history[..., 0]))
    assert torch.equal(events[..., 3:], table(embed, 15, b.history[..., 1]))
    assert torch.equal(target[:, :3], table(embed, 6, b.ids[:, 1]))
    assert torch.equal(target[:, 3:], table(embed, 15, b.ids[:, 2]))
    assert torch.equal(others[:, :3], table(embed, 0, b.ids[:, 0]))
    torch.testing.assert_close(others[:, 3:], b.numeric * embed.numeric[0])


def test_padding_changes_nothing_and_gets_no_gradient(embed):
    b = batch()
    more = b._replace(history=torch.nn.functional.pad(b.history, (0, 0, 4, 0)))
    torch.testing.assert_close(embed(b), embed(more))
    embed(more).square().sum().backward()
    gradient = embed.table.weight.grad.to_dense()
    assert not gradient[[6, 15]].any()  # rows that padding reads
    assert gradient[7:15].abs().sum() > 0


def counted(call, calls: list):
    def lookup(*args):
        calls.append(args)
        return call(*args)

    return lookup


@pytest.mark.parametrize("read", ["forward", "sequence"])
def test_one_lookup_a_batch_and_the_steps_of_dense_adam(read):
    ends = []
    for sparse in (True, False):
        torch.manual_seed(0)
        embed = FeatureEmbedding(SCHEMA, 3, sparse=sparse, std=1.0)
        optimiser = RowAdam(embed, lr=0.05)
        calls = []
        if sparse:
            embed.lookup = counted(embed.lookup, calls)
        for step in range(6):
            b = batch(8, 2 + step % 4)
            out = getattr(embed, read)(b)
            if read == "sequence":
                weight = torch.where(out.mask, out.mask.sum(1, keepdim=True), 0)[..., None]
                out = torch.cat([(out.events * weight).sum(1), out.target, out.others], 1)
            loss = (out - 1).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        assert len(calls) == (6 if sparse else 0)
        ends.append(embed.state_dict()["table.weight"].clone())
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)


def test_sequences_without_a_shared_table():
    embed = FeatureEmbedding(
        Schema((Field("a", size=3), Field("h", "sequence", size=5, length=4))), 2, std=1.0
    )
    assert embed.table.weight.shape == (8, 2)
    b = Batch(torch.zeros(1, 1).int(), torch.zeros(1, 0), torch.ones(1, 1), torch.tensor([[[4]]]))
    assert torch.equal(embed(b)[0, 1], embed.table.weight[7])
    with pytest.raises(ValueError, match="0 of 1 do"):
        embed.sequence(b)
    with pytest.raises(ValueError, match="0 of 0 do"):
        FeatureEmbedding(Schema((Field("a", size=3),)), 2).sequence(b)
