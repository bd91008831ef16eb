"""A table over two processes of gloo equals one process; slots, owners, shards of a state."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from paperlab.nn.id_maps import mix
from paperlab.nn.sharded import ShardedTable, owner, shard, slots_of, unshard
from paperlab.nn.table_adam import TableAdam
from paperlab.nn.tables import GrowingTable

STEPS, ROWS = 3, 12


def batches() -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    return mix(torch.randint(0, 9, (STEPS, ROWS, 2), generator=draw))


def loss(vectors: torch.Tensor) -> torch.Tensor:
    return (vectors.sum(1).sin() * torch.tensor([1.0, 2.0, -1.0])).sum(1).mean()


def work(rank: int, path: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}/meet", rank=rank, world_size=2)
    table = GrowingTable(3, std=0.5)
    model = ShardedTable(table)
    optimiser = TableAdam(model, lr=0.1)
    vectors = []
    for batch in batches():
        optimiser.zero_grad()
        vectors.append(model(batch[rank::2]))
        loss(vectors[-1]).backward()
        optimiser.step()
    torch.save((torch.stack(vectors).detach(), table.state_dict()), f"{path}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    whole, vectors = GrowingTable(3, std=0.5), []
    optimiser = TableAdam(whole, lr=0.1)
    for batch in batches():
        optimiser.zero_grad()
        vectors.append(whole(batch))
        loss(vectors[-1]).backward()
        optimiser.step()
    for rank, (got, state) in enumerate(parts):
        want = torch.stack([v[rank::2] for v in vectors])
        assert torch.allclose(got, want, atol=1e-6)
        assert 0 < len(state["keys"]) < len(whole)
        assert (owner(state["keys"], 2) == rank).all()
    again = GrowingTable(3)
    again.load_state_dict(unshard([state for _, state in parts]))
    ids = batches().flatten().unique()
    assert torch.allclose(again.eval()(ids), whole.eval()(ids), atol=1e-6)
    for name in ("exp_avg", "exp_avg_sq", "updates"):
        mine, theirs = (getattr(t, name)[t.index.find(ids)] for t in (again, whole))
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_slots():
    assert slots_of(3) == [21846, 21845, 21845]
    assert sum(slots_of(7)) == 65_536
    shares = owner(torch.arange(30_000), 3).bincount() / 30_000
    assert (shares - 1 / 3).abs().max() < 0.01
    with pytest.raises(ValueError, match="ranks must be at least 1"):
        slots_of(0)


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_a_state_survives_other_numbers_of_shards(ranks):
    table, ids = GrowingTable(2, std=1.0), torch.arange(40)
    table(ids).square().sum().backward()
    TableAdam(table).step()
    shards = [shard(table.state_dict(), rank, ranks) for rank in range(ranks)]
    assert sum(len(s["keys"]) for s in shards) == 40
    other = GrowingTable(2)
    other.load_state_dict(unshard(shards))
    assert torch.equal(other.eval()(ids), table.eval()(ids))
    assert other.step == 1
