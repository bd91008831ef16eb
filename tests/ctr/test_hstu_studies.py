"""The studies, small: what rows hold, that trials are equal, and what each arm can and cannot count."""

import numpy as np
import pytest
import torch
from paperlab import data
from paperlab.ctr import hstu_studies as studies
from paperlab.ctr.user_sequences import user_sequences
from paperlab.ctr.worlds.counts import counts


def test_counter_reads_its_own_key_or_not():
    torch.manual_seed(0)
    part = counts(4, held=4, seed=0).test
    for own in (True, False):
        model = studies.Counter(own, position=False, norm=False, divisor=8)
        torch.nn.init.normal_(model.reader.layers[0].uvqk)
        same = part.take([0]).history.clone()
        same[same == 0] = 5
        one, two = (model.reader.mask(h, 1)[0][0, -1].sum().item() for h in (same, same[:, 20:]))
        assert (one, two) == (40 + own, 20 + own)


def test_spread_by_hand():
    torch.manual_seed(0)
    model, part = studies.Counter(), counts(4, held=6, seed=0).test
    layer, reader = model.reader.layers[0], model.reader
    row = torch.cat([part.history[2], part.target[2]])
    row = row[row > 0]
    x = torch.nn.functional.layer_norm(reader.embed(row), (32,), eps=1e-6) @ layer.uvqk
    _, v, q, k = torch.nn.functional.silu(x).split(32, 1)
    r = layer.position[torch.arange(len(row)) - len(row) + 41]
    heads = [slice(0, 16), slice(16, 32)]
    mixed = [torch.nn.functional.silu(k[:, h] @ q[-1, h] + r) / 41 @ v[:, h] for h in heads]
    want = torch.cat(mixed).var(correction=0).item()
    assert model.spread(part)[2].item() == pytest.approx(want, rel=1e-3)
    assert want < 1e-6  # at the start the LayerNorm divides by its eps, not by the spread


def test_frequencies_alone_do_not_make_a_count():
    """Without its own key a softmax stays at the frequencies' ceiling; a sum passes it."""
    rows = studies.counting([0], 250, ["softmax", "HSTU without LN"], [0.006], False, False)
    softmax, summed = rows
    assert softmax["R²"] < softmax["ceiling"] + 0.02 and summed["R²"] > softmax["ceiling"] + 0.1
    assert softmax["dense"] == summed["dense"]


def test_rates_are_chosen_at_the_first_seed():
    rows = [*studies.counting([0, 1], 10, ["softmax"], [1e-6, 0.01])]
    assert [r["lr"] for r in rows] == [0.01, 0.01] and [r["edge"] for r in rows] == [True, True]
    assert rows[0]["ceiling"] != rows[1]["ceiling"]  # worlds are drawn anew
    with pytest.raises(ValueError, match="arms must be one of HSTU, softmax"):
        next(studies.counting([0], 1, ["none"], [0.1]))


def test_rates_are_chosen_on_seeds_outside(monkeypatch):
    """The mean over both seeds decides, not the first of them; the grid follows its best end."""
    found = {1e-3: (0.9, 0.1), 2e-3: (0.5, 0.6), 4e-3: (0.6, 0.6), 8e-3: (0.7, 0.6), 0.016: (1, 0)}
    asked = []

    def compare(builders, data, *, seeds, rates, metric, **how):
        asked.append((rates[0], seeds[0], data))
        if rates[0] == 0.016 and seeds[0] == 8:
            raise FloatingPointError
        valid = dict(zip([7, 8], found[rates[0]], strict=True)).get(seeds[0])
        yield {"lr": rates[0], "valid_R²": valid, "edge": False}, None

    monkeypatch.setattr(studies.trials, "compare", compare)
    how = {"metric": ("R²", "higher")}

    def best(widen, rates):
        return studies.best_rate("a", None, str, [7, 8], rates, widen=widen, **how)

    assert best(0, [1e-3, 2e-3, 4e-3]) == (4e-3, True)
    assert best(1, [1e-3, 2e-3, 4e-3]) == (8e-3, True)
    assert best(2, [1e-3, 2e-3, 4e-3]) == (8e-3, False)
    asked.clear()
    rows = studies.tuned({"a": None}, str, [0, 1], [2e-3, 4e-3], [7, 8], **how)
    assert [(row["lr"], row["edge"]) for row, _, _ in rows] == [(4e-3, True)] * 2
    assert asked[:4] == [(rate, seed, str(seed)) for rate in (2e-3, 4e-3) for seed in (7, 8)]
    assert asked[4:] == [(4e-3, 0, "0"), (4e-3, 1, "1")]
    with pytest.raises(ValueError, match="other seeds than seeds, got 1 in both"):
        next(studies.counting([0, 1], 1, ["HSTU"], [0.1], tune=[1, 2]))


def test_stream_rows():
    rows = [*studies.stream([0], 200, ["HSTU", "SASRec"], [0.008])]
    assert [r["model"] for r in rows] == ["HSTU", "SASRec", "count oracle", "popularity"]
    assert rows[2]["HR@10"] > rows[3]["HR@10"] > 0.1
    assert rows[0]["dense"] == pytest.approx(rows[1]["dense"], rel=0.05)


LENGTHS = [5, 4, 9]
STARTS = [0, 10, 20]


@pytest.fixture(scope="module")
def log():
    """Three users whose items are their own consecutive numbers, at one a minute."""
    frame = {"user": [], "item": [], "ts": []}
    for start, n in zip(STARTS, LENGTHS, strict=True):
        for k in range(n):
            frame["user"].append(f"u{start}")
            frame["item"].append(start + k)
            frame["ts"].append(1_600_000_000 + 60 * k)
    return data.from_frame(frame, "sequences", user="user", item="item", time="ts")


def test_user_sequences(log):
    parts = user_sequences(log, 4)
    assert parts.length == 4 and parts.vocabulary == sum(LENGTHS) + 1
    for user, n in enumerate(LENGTHS):
        test, valid, train = (p.take([user]) for p in (parts.test, parts.valid, parts.train))
        whole = [
            *dict.fromkeys([*test.met[0].nonzero()[1:, 0].tolist(), test.target[0, -1].item()])
        ]
        assert len(whole) == n
        seen = [i for i in test.items[0].tolist() if i]
        assert len(seen) == min(4, n - 1) and test.target[0, :-1].sum() == 0
        assert valid.target[0, -1] == test.items[0, -1]
        assert train.target[0, -1] == valid.items[0, -1] and valid.met.sum() == n - 1
        real = train.items[0] > 0
        assert (train.target[0] > 0).tolist() == real.tolist() and real.sum() == min(4, n - 3)
        assert torch.equal(train.items[0, 1:][real[:-1]], train.target[0, :-1][real[:-1]])
        assert (test.asked[0, -1] - test.times[0, -1]).item() == 60
        assert (train.asked - train.times)[0][real].tolist() == [60] * int(real.sum())


def test_real_rows(log):
    parts = user_sequences(log, 4)
    arms = {
        "HSTU": {"layer": "HSTU"},
        "asked": {"layer": "HSTU", "time": True},
        "own time": {"layer": "HSTU", "time": True, "request_time": False},
    }
    rows, units = studies.real(parts, arms, [0, 1], [0.001], 1, dim=8)
    assert len(rows) == 8 and len(units["popularity", 1]) == 3
    for row in rows:
        assert row["NDCG@10"] == pytest.approx(units[row["model"], row["seed"]].mean(), rel=1e-5)


def test_gaps_are_of_seeds_and_users():
    rng = np.random.default_rng(0)
    units = {(m, s): rng.random(50) for m in ("a", "b", "c") for s in range(3)}
    rows = studies.user_gaps(units, ["a", "b"], "c")
    assert [(r["model"], r["against"]) for r in rows] == [("a", "c"), ("b", "c")]
    gaps = np.stack([units["b", s] - units["c", s] for s in range(3)])
    assert rows[1]["difference"] == pytest.approx(gaps.mean())
    assert rows[1]["from"] < gaps.mean() - 1.96 * gaps.mean(0).std() / 50**0.5 < rows[1]["to"]


def test_equal_scores_in_every_way_of_passing():
    rows = studies.throughput(0, history=5, candidates=4, dim=8)
    assert [r["model"] for r in rows] == ["4 at once", "1 at once", "copied histories", "no cache"]
    assert max(r["apart"] for r in rows) < 1e-5 and min(r["candidates/s"] for r in rows) > 0
