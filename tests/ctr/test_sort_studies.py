"""Arms on equal terms, pre-training and transfer, the time of a request; KuaiRand's requests."""

from dataclasses import replace

import polars as pl
import pytest
import torch
from paperlab import metrics
from paperlab.ctr import sort_studies
from paperlab.ctr.real_requests import of_events
from paperlab.ctr.sort import SORT
from paperlab.ctr.worlds.requests import GIFT, OWN, requests

WORLD = requests("binding", 96, test=40, seed=0)
HOW = {"rates": [0.004], "epochs": 1, "batch_size": 48}


def test_cells_start_from_the_table_they_name():
    how = {"epochs": 1, "batch_size": 48}
    arms = sort_studies.tables(WORLD, 0, [*sort_studies.TABLES], **how)
    assert list(arms) == list(sort_studies.TABLES)
    table = sort_studies.pre_trained(WORLD, 0, **how)
    assert table.shape == (401, 32)
    for name, options in arms.items():
        made = SORT(WORLD.vocabulary, 16, **options)
        assert made.tokens.items.weight.equal(table) == name.startswith("transfer")
        assert made.tokens.items.weight.requires_grad != name.endswith("frozen")
    slow = SORT(WORLD.vocabulary, 16, **arms["transfer, slow table"]).configure_optimizers()
    assert [g["lr"] for g in slow.param_groups] == pytest.approx([4e-3, 4e-4])


def test_rows_checks_and_scores_agree():
    worlds = [(seed, requests("binding", 96, test=40, seed=seed)) for seed in (0, 1)]

    def arms(world, seed):
        frozen = {"table": world.latents, "freeze": True}
        return {"a": frozen, "b": frozen | {"layers": 2}}

    how = HOW | {"rates": [0.02, 1e-5], "epochs": 2}
    found = list(sort_studies.trained(arms, worlds, **how))
    assert [(r["model"], r["seed"]) for r, _, _ in found] == [
        ("a", 0),
        ("b", 0),
        ("a", 1),
        ("b", 1),
    ]
    for row, checks, scores in found:
        p = worlds[row["seed"]][1].test.probability.flatten()
        assert row["auc"] == metrics.exact_auc(scores["best"], p)
        assert row["last"] == metrics.exact_auc(scores["last"], p) == checks[-1]["test"]
        assert checks[row["best epoch"] - 1]["auc"] == max(c["auc"] for c in checks)
        assert row["edge"] and len(checks) == 2
    for a, b in ((0, 2), (1, 3)):  # the first world's rate is everyone's
        assert found[a][0]["lr"] == found[b][0]["lr"]


def test_vanilla_has_as_many_dense_weights():
    sizes = {
        name: SORT(401, 16, **{"layers": 2} | options).count_parameters()["dense"]
        for name, options in ({"SORT": {}} | sort_studies.PARTS).items()
    }
    assert sizes["vanilla"] == pytest.approx(sizes["SORT"], rel=0.01)
    assert sizes["no gate"] < sizes["SORT"]


def test_the_trivial_rival_by_hand():
    train = requests("binding", 2, test=1).train
    train.candidates[:], train.labels[:] = 5, 0
    train.candidates[0, 0], train.labels[0, 0] = 7, 1  # the mean rate is 1 / 12
    test = replace(WORLD.test, candidates=torch.tensor([[7, 5, 9]]))
    rates = sort_studies.item_rate(replace(WORLD, train=train, test=test))
    assert rates.tolist() == pytest.approx([(1 + 10 / 12) / 11, (10 / 12) / 21, 1 / 12])
    row = sort_studies.rival(WORLD, 3)
    assert row["seed"] == 3 and row["auc"] == row["last"] and 0.4 < row["auc"] < 0.7


def test_the_share_of_long_views_in_the_history_by_hand():
    test = replace(
        WORLD.test.take(slice(3)),
        items=torch.tensor([[0, 0, 4, 5], [6, 7, 8, 9], [0, 0, 0, 0]]),
        flags=torch.tensor([[0, 0, OWN, GIFT], [OWN, OWN, OWN, GIFT], [0, 0, 0, 0]]),
    )
    share = sort_studies.own_share(replace(WORLD, test=test)).view(3, -1)
    assert share[:, 0].tolist() == [0.5, 0.75, 0.0] and (share == share[:, :1]).all()
    row = sort_studies.rival(replace(WORLD, test=test), 0, "share", sort_studies.own_share)
    assert row["model"] == "share" and row["gauc"] == 0.5  # ties within a request


def test_differences_see_a_leak():
    model = SORT(WORLD.vocabulary, 16)
    found = sort_studies.differences(model, WORLD.test)
    assert len(found) == 2 and max(found.values()) < 1e-5

    class Leaky(SORT):
        def forward(self, batch):
            logits = super().forward(batch)
            return logits + logits.mean(1, keepdim=True)

    found = sort_studies.differences(Leaky(WORLD.vocabulary, 16), WORLD.test)
    assert min(found.values()) > 1e-4


def test_what_a_token_holds_by_hand():
    nan = float("nan")
    # window 2, two layers that compute 3 and 2 of 4 events: event 1 is dropped at once, 2 after one
    wanted = [
        [0, nan, nan, nan, nan],
        [1, 0, nan, nan, nan],
        [2, 1, 0, nan, nan],
        [nan, 2, 1, 0, nan],
        [1, 1, 1, 1, 0],
    ]
    found = sort_studies.first_held(4, 2, 2, 2)
    torch.testing.assert_close(found, torch.tensor(wanted), equal_nan=True)


@pytest.mark.parametrize(("window", "last"), [(None, None), (2, 3), (3, 2), (1, 0)])
def test_what_a_token_holds_is_what_moves_it(window, last):
    torch.manual_seed(0)
    options = {"layers": 2, "window": window, "last": last, "special": False}
    model = SORT(WORLD.vocabulary, 8, **options).eval()
    few = WORLD.test.take(slice(0, 1))
    few = few.with_history(few.items[:, :8], few.flags[:, :8])
    states = []
    model.blocks[1].register_forward_hook(lambda _, __, out: states.append(out[0][0]))

    def left(batch):
        model.predict(batch)
        return states.pop()

    plain, held = left(few), sort_studies.first_held(8, window, last, 2) > 0
    rows = [*range(8 - len(plain) + 6, 8), 8]  # events that the last layer computes, a candidate
    for j in range(8):
        moved = few.items.clone()
        moved[:, j] = moved[:, j] % 400 + 1
        change = (left(few.with_history(moved, few.flags)) - plain).abs().amax(1)
        for row, i in enumerate(rows):
            assert (change[row] > 1e-7).item() == (held[i, j].item() or i == j)


def test_times_of_requests():
    rows = sort_studies.request_times(WORLD, [1, 8], requests=4, laps=3)
    assert {(r["N"], r["model"]) for r in rows} == {
        (n, m) for n in (1, 8) for m in ("SORT", "SORT, one by one", "torch encoder")
    }
    assert all(r["ms"] > 0 for r in rows)


def test_the_encoder_of_torch_keeps_candidates_apart_and_has_equal_blocks():
    torch.manual_seed(0)
    model = SORT(WORLD.vocabulary, 16, layers=2, gate=False, qk_norm=False, special=False)
    plain = sort_studies.Encoder(model, 2, 32, 64).eval()
    moved = WORLD.test.candidates.clone()
    moved[:, 0] = moved[:, 0] % 400 + 1
    with torch.no_grad():
        a, b = plain(WORLD.test), plain(replace(WORLD.test, candidates=moved))
    torch.testing.assert_close(a[:, 1:], b[:, 1:])
    assert (a[:, 0] - b[:, 0]).abs().max() > 1e-3
    matrices = [
        sum(w.numel() for w in stack.parameters() if w.ndim > 1)
        for stack in (plain.stack, model.blocks)
    ]
    assert matrices[0] == matrices[1]


# KuaiRand ----------------------------------------------------------------------------------------


def events() -> pl.DataFrame:
    """User 7 has 8 exposures, user 9 five; video 50 is shown twice in training, 60 on day 3 only."""
    user = [7] * 8 + [9] * 5
    video = [50, 51, 50, 52, 53, 54, 60, 50, 51, 52, 53, 54, 60]
    day = [1, 1, 1, 1, 2, 2, 3, 3, 1, 1, 2, 3, 3]
    view = [1, 0, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1]
    time = [*range(8), *range(5)]
    names = ("user_id", "video_id", "date", "time_ms", "long_view")
    return pl.DataFrame(dict(zip(names, (user, video, day, time, view), strict=True))).reverse()


def test_requests_of_exposures_by_hand():
    log = of_events(events(), 4, 2, valid_day=2, minimum=2)
    # ids: 50 -> 2, 51 -> 3, 52 -> 4; 53, 54 and 60 have fewer than 2 exposures on day 1
    assert log.vocabulary == 5
    assert log.train.items.tolist() == [[0, 0, 2, 3]] and log.train.candidates.tolist() == [[2, 4]]
    assert log.train.flags.tolist() == [[0, 0, OWN, GIFT]] and log.train.labels.tolist() == [[0, 1]]
    assert log.valid.items.tolist() == [[2, 3, 2, 4]] and log.valid.candidates.tolist() == [[1, 1]]
    assert log.test.items.tolist() == [[2, 4, 1, 1], [0, 0, 3, 4]]
    assert log.test.candidates.tolist() == [[1, 2], [1, 1]]
    assert log.test.labels.equal(log.test.probability) and log.test.group.tolist() == [0, 1]
    assert log.test.present[1].tolist() == [False, False, True, True]


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="length must be at least 1"):
        of_events(events(), 0)
