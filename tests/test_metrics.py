"""Metrics against slow references, scikit-learn and identities."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import metrics
from sklearn.metrics import roc_auc_score

rows = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(0, 1), st.integers(0, 4)), min_size=2, max_size=40
)


def slow_pairs(scores, labels):
    """What each positive-negative pair counts."""
    return [
        (p > n) + 0.5 * (p == n)
        for p, y in zip(scores, labels, strict=True)
        if y
        for n, z in zip(scores, labels, strict=True)
        if not z
    ]


def slow_by_user(scores, labels, users):
    """The pairs and the number of rows of every user who has both classes."""
    mine = [users == u for u in users.unique()]
    found = [(slow_pairs(scores[m].tolist(), labels[m].tolist()), int(m.sum())) for m in mine]
    return [(pairs, rows) for pairs, rows in found if pairs]


def slow_gauc(scores, labels, users):
    found = slow_by_user(scores, labels, users)
    weight = sum(rows for _, rows in found)
    return sum(sum(p) / len(p) * rows for p, rows in found) / weight if found else math.nan


@settings(deadline=None, max_examples=60)
@given(rows)
def test_auc_and_gauc_equal_the_pairwise_count(drawn):
    scores, labels, users = (torch.tensor(c) for c in zip(*drawn, strict=True))
    pairs = slow_pairs(scores.tolist(), labels.tolist())
    expected = sum(pairs) / len(pairs) if pairs else math.nan
    args = scores.float(), labels, users
    assert metrics.auc(*args[:2]) == pytest.approx(expected, nan_ok=True)
    expected = slow_gauc(scores, labels, users)
    assert metrics.gauc(*args) == pytest.approx(expected, nan_ok=True)


def test_a_tie_counts_one_half():
    """TIN's sheet: (.7, .3) won, (.4, .4) tied."""
    args = (
        torch.tensor([0.7, 0.3, 0.4, 0.4]),
        torch.tensor([1, 0, 1, 0]),
        torch.tensor([5, 5, 9, 9]),
    )
    assert metrics.gauc(*args) == 0.75
    assert metrics.gauc(torch.zeros(4), *args[1:]) == 0.5


def test_users_weigh_by_rows():
    scores = torch.tensor([2.0, 1, 3, 4, 1.0, 2])
    labels, users = torch.tensor([1, 0, 0, 0, 1, 0]), torch.tensor([0, 0, 0, 0, 1, 1])
    assert metrics.gauc(scores, labels, users) == pytest.approx((4 * 1 / 3 + 2 * 0) / 6)


def test_auc_equals_scikit_learn_with_ties_at_size():
    draw = np.random.default_rng(0)
    scores, labels = draw.integers(0, 50, 20_000), draw.integers(0, 2, 20_000)
    ours = metrics.auc(torch.tensor(scores).float(), torch.tensor(labels))
    assert ours == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_auc_is_invariant_to_monotone_maps_and_gauc_of_one_user_is_auc():
    scores, labels = torch.randn(500), (torch.rand(500) < 0.3).long()
    auc = metrics.auc(scores, labels)
    assert metrics.auc(scores.exp() * 3, labels) == auc
    assert metrics.gauc(scores, labels, torch.full((500,), 7)) == pytest.approx(auc)


def test_users_with_one_class_do_not_count():
    scores = torch.tensor([0.1, 0.9, 0.5, 0.6])
    labels, users = torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1])
    assert metrics.gauc(scores, labels, users) == 1.0


def test_logloss_of_the_base_rate_is_its_entropy():
    labels = torch.tensor([1.0, 0, 0, 0])
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    logits = torch.full((4,), math.log(0.25 / 0.75), dtype=torch.float64)
    assert metrics.logloss(logits, labels) == pytest.approx(entropy)


def test_bad_input_is_refused_in_one_line():
    with pytest.raises(ValueError, match="vectors of one length"):
        metrics.auc(torch.zeros(3), torch.zeros(2))
    with pytest.raises(ValueError, match="NaN"):
        metrics.auc(torch.tensor([math.nan, 1.0]), torch.tensor([0, 1]))


RANKED = torch.tensor([0.1, 0.9, 0.2, 0.8])
SCORERS = [
    lambda s, y: metrics.auc(s, y),
    lambda s, y: metrics.logloss(s, y),
    lambda s, y: metrics.gauc(s, y, torch.zeros(len(s), dtype=torch.long)),
]


@pytest.mark.parametrize("score", SCORERS, ids=["auc", "logloss", "gauc"])
def test_what_cannot_be_scored_is_refused_or_nan(score):
    clicks = torch.tensor([0.0, 1, 0, 1])
    for labels, wrong in ((2 * clicks - 1, "-1"), (clicks + 1, "2"), (clicks * torch.nan, "nan")):
        with pytest.raises(ValueError, match=f"^labels must be 0 or 1, got {wrong}$"):
            score(RANKED, labels)
    with pytest.raises(ValueError, match="must be vectors of one length"):
        score(RANKED, clicks[:3])
    with pytest.raises(ValueError, match="must be vectors of one length"):
        score(RANKED[:, None], clicks[:, None])
    with pytest.raises(ValueError, match="scores hold NaN"):
        score(RANKED.log() * torch.tensor([1, 1, 1, torch.nan]), clicks)
    with pytest.raises(ValueError, match="users hold NaN"):
        metrics.gauc(RANKED, clicks, torch.tensor([1.0, 1, torch.nan, 2]))
    assert math.isnan(score(RANKED[:0], clicks[:0]))
    assert math.isfinite(score(RANKED, clicks.bool())) and math.isfinite(
        score(RANKED, clicks.int())
    )


def test_infinite_scores_rank_and_cost_nothing_where_they_are_right():
    logits, clicks = torch.tensor([-math.inf, math.inf, 0.0]), torch.tensor([0, 1, 1])
    assert metrics.auc(logits, clicks) == 1.0
    assert metrics.logloss(logits, clicks) == pytest.approx(math.log(2) / 3)
    assert metrics.logloss(logits, 1 - clicks) == math.inf
    assert metrics.auc(torch.full((3,), math.inf), clicks) == 0.5  # all tied


def test_one_class_has_no_auc_but_a_logloss():
    for labels in (torch.zeros(4), torch.ones(4)):
        assert all(math.isnan(score(RANKED, labels)) for score in SCORERS[:1] + SCORERS[2:])
        assert metrics.logloss(RANKED, labels) > 0


def test_calibration_undoes_a_scale_and_a_shift():
    draw = torch.Generator().manual_seed(0)
    true = 2 * torch.randn(20_000, generator=draw) - 1
    clicks = (torch.rand(20_000, generator=draw) < true.sigmoid()).float()
    (v, t), (valid, test) = true.chunk(2), clicks.chunk(2)
    plain = metrics.logloss(t, test)
    for a, b in ((1.0, 0.0), (3.0, 2.0), (0.2, -4.0), (-1.0, 0.0)):
        found = metrics.calibrated_logloss(a * t + b, test, a * v + b, valid)
        assert found == pytest.approx(plain, abs=1e-3)
    assert metrics.logloss(3 * t + 2, test) > plain + 0.2
    constant = metrics.calibrated_logloss(torch.zeros(10_000), test, torch.zeros(10_000), valid)
    rate = valid.mean().logit()
    assert constant == pytest.approx(metrics.logloss(rate.expand(10_000), test), abs=1e-6)


def test_calibration_is_logistic_regression_on_the_logit():
    from sklearn.linear_model import LogisticRegression

    draw = torch.Generator().manual_seed(1)
    v, t = torch.randn(2, 500, generator=draw)
    valid, test = (torch.rand(2, 500, generator=draw) < torch.stack([v, t]).sigmoid()).float()
    platt = LogisticRegression(C=1e9).fit(v[:, None], valid)
    slow = metrics.logloss(torch.from_numpy(platt.decision_function(t[:, None])), test)
    assert metrics.calibrated_logloss(t, test, v, valid) == pytest.approx(slow, abs=1e-5)
    with pytest.raises(ValueError, match="valid_labels must hold both classes"):
        metrics.calibrated_logloss(t, test, v, torch.ones(500))


# against known probabilities, and of amounts ------------------------------------------------------

known = st.lists(st.tuples(st.integers(-3, 3), st.floats(0, 1)), min_size=2, max_size=25)


@settings(deadline=None, max_examples=60)
@given(known)
def test_exact_auc_equals_the_double_loop(drawn):
    scores, p = (torch.tensor(c, dtype=torch.float64) for c in zip(*drawn, strict=True))
    wins = weight = 0.0
    for i in range(len(p)):
        for j in range(len(p)):
            if i != j:
                w = p[i] * (1 - p[j])
                weight += w
                wins += w * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
    got = metrics.exact_auc(scores, p)
    if weight > 1e-9:
        assert got == pytest.approx(float(wins / weight), abs=1e-9)


def test_exact_auc_is_the_auc_of_certain_labels_and_the_mean_over_drawn_ones():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(300, generator=generator)
    labels = (torch.rand(300, generator=generator) < 0.3).float()
    assert metrics.exact_auc(scores, labels) == pytest.approx(metrics.auc(scores, labels))
    p = (scores + torch.randn(300, generator=generator)).sigmoid()
    drawn = [
        metrics.auc(scores, (torch.rand(300, generator=generator) < p).float()) for _ in range(400)
    ]
    assert metrics.exact_auc(scores, p) == pytest.approx(sum(drawn) / 400, abs=0.004)
    assert metrics.exact_auc(p, p) >= metrics.exact_auc(scores, p)
    assert metrics.exact_auc(-p, p) == pytest.approx(1 - metrics.exact_auc(p, p))
    assert metrics.exact_auc(torch.zeros(300), p) == pytest.approx(0.5)


def test_kl_is_zero_at_the_truth_and_the_excess_of_expected_logloss():
    p = torch.tensor([0.0, 0.2, 0.5, 1.0])
    assert metrics.kl(torch.tensor([-60.0, math.log(0.25), 0.0, 60.0]), p) == pytest.approx(
        0, abs=1e-7
    )
    # p = .5 against sigmoid = .2: .5 ln(.5/.2) + .5 ln(.5/.8)
    expected = 0.5 * math.log(2.5) + 0.5 * math.log(0.625)
    assert metrics.kl(torch.tensor([math.log(0.25)]), torch.tensor([0.5])) == pytest.approx(
        expected
    )


def test_temperature_recovers_a_known_scale_and_never_raises_the_loss():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(40_000, generator=generator) * 2
    labels = (torch.rand(40_000, generator=generator) < logits.sigmoid()).float()
    assert metrics.temperature(3 * logits, labels) == pytest.approx(3, rel=0.05)
    t = metrics.temperature(logits / 4, labels)
    assert metrics.logloss(logits / 4 / t, labels) <= metrics.logloss(logits / 4, labels)
    with pytest.raises(ValueError, match="both classes"):
        metrics.temperature(logits, torch.ones(40_000))


def test_calibration_ratio_is_a_ratio_of_weighted_sums():
    predicted, actual = torch.tensor([0.1, 0.3]), torch.tensor([0.2, 0.2])
    assert metrics.calibration_ratio(predicted, actual) == pytest.approx(1)
    weighted = metrics.calibration_ratio(predicted, actual, torch.tensor([0.0, 2.0]))
    assert weighted == pytest.approx(1.5)
    assert metrics.calibration_ratio(predicted, torch.zeros(2)) == math.inf


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 4)), min_size=2, max_size=25))
def test_xauc_equals_the_double_loop(drawn):
    predicted, actual = (torch.tensor(c, dtype=torch.float64) for c in zip(*drawn, strict=True))
    pairs = [(p > q) + 0.5 * (p == q) for p, y in drawn for q, z in drawn if y > z]
    expected = sum(pairs) / len(pairs) if pairs else math.nan
    assert metrics.xauc(predicted, actual) == pytest.approx(expected, nan_ok=True)


def test_xauc_of_two_values_is_the_auc():
    scores, labels = torch.tensor([0.7, 0.3, 0.4, 0.4]), torch.tensor([1, 0, 1, 0])
    assert metrics.xauc(scores, labels) == pytest.approx(metrics.auc(scores, labels))
    amounts = torch.tensor([3.0, 1.0, 2.0])
    assert metrics.xauc(amounts, amounts) == 1 and metrics.xauc(-amounts, amounts) == 0
    assert metrics.xauc(torch.ones(3), amounts) == 0.5


def test_weighted_recall_by_hand_and_its_limits():
    scores = torch.tensor([0.9, 0.1, 0.5, 0.2, 0.8])
    chosen, requests = torch.tensor([0, 1, 1, 1, 0]), torch.tensor([7, 7, 7, 3, 3])
    weights = torch.tensor([1.0, 5.0, 2.0, 3.0, 1.0])
    # first two of request 7: rows 0 and 2; of request 3: both rows
    assert metrics.weighted_recall(scores, chosen, requests, 2, weights) == pytest.approx(5 / 10)
    assert metrics.weighted_recall(scores, chosen, requests, 2) == pytest.approx(2 / 3)
    assert metrics.weighted_recall(scores, chosen, requests, 1, weights) == 0
    assert metrics.weighted_recall(scores, chosen, requests, 3, weights) == 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: metrics.exact_auc(x, x * 3), "probabilities must be in"),
        (lambda x: metrics.kl(x, x[:1]), "vectors of one length"),
        (lambda x: metrics.xauc(x * math.nan, x), "predicted must be finite"),
        (lambda x: metrics.weighted_recall(x, x.round(), x.long(), 0), "k must be"),
        (lambda x: metrics.weighted_recall(x, x, x.long(), 1), "labels must be 0 or 1"),
        (lambda x: metrics.calibration_ratio(x, x, x[:1]), "vectors of one length"),
    ],
)
def test_what_cannot_be_scored_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call(torch.tensor([0.2, 0.9]))
