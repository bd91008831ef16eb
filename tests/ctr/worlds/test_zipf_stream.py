"""The stream's frequencies, weights, drift; the best shared weight against a search."""

import numpy as np
import pytest
import torch
from paperlab import metrics
from paperlab.ctr.worlds.zipf_stream import zipf_stream

LOG = zipf_stream(4_000, fields=3, ids=50, valid=1_000, held=20_000, seed=1)


def test_frequencies_are_zipfs():
    law = np.arange(1, 51) ** -1.1
    counts = LOG.test.ids.numpy()
    for f in range(3):
        share = np.bincount(counts[:, f], minlength=51)[1:] / len(counts)
        assert np.abs(share - law / law.sum()).max() < 0.01
        np.testing.assert_allclose(LOG.truth.frequency[f, 1:].numpy(), law / law.sum())


def test_logits_and_labels_are_the_formulas():
    truth, ids = LOG.truth, LOG.test.ids.tolist()
    slow = [-1.5 + sum(truth.weights[f, i].item() for f, i in enumerate(row)) for row in ids[:200]]
    assert torch.allclose(truth.logits[:200], torch.tensor(slow, dtype=torch.float64))
    assert torch.allclose(truth.logits_of(truth.weights), truth.logits)
    p = truth.logits.sigmoid()
    assert LOG.test.labels[:, 0].mean().item() == pytest.approx(p.mean().item(), abs=0.015)


def test_the_plans_world():
    """Rate .254 and entropy .433 to .439 nats, with six fields of 20,000 ids."""
    rates, entropies = [], []
    for seed in range(6):
        p = zipf_stream(100, held=20_000, seed=seed).truth.logits.sigmoid()
        rates.append(p.mean().item())
        entropies.append(-(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).mean().item())
    assert np.mean(rates) == pytest.approx(0.254, abs=0.03)
    assert np.mean(entropies) == pytest.approx(0.436, abs=0.03)


def test_occurrences_and_rare_rows():
    train, truth = LOG.train.ids, LOG.truth
    row = LOG.test.ids[7]
    assert truth.seen[7].tolist() == [(train[:, f] == i).sum().item() for f, i in enumerate(row)]
    slow = [sum(n < 20 for n in seen) >= 2 for seen in truth.seen.tolist()]
    assert truth.rare(20).tolist() == slow and 0 < sum(slow) < len(slow)


def test_the_best_shared_weight_is_the_best_of_least_squares():
    truth = LOG.truth
    draw = torch.Generator().manual_seed(0)
    buckets = torch.randint(0, 20, truth.weights.shape, generator=draw)
    shared = truth.best_shared(buckets)
    design = torch.nn.functional.one_hot(buckets.flatten(), 20).double()
    root = truth.frequency.flatten().sqrt()[:, None]
    best = torch.linalg.lstsq(root * design, root * truth.weights.flatten()[:, None]).solution
    assert torch.allclose(shared.flatten(), (design @ best)[:, 0], atol=1e-9)
    p = truth.logits.sigmoid()
    loss = metrics.kl(truth.logits_of(shared), p)
    other = truth.best_shared(torch.zeros_like(buckets))
    assert 0 < loss < metrics.kl(truth.logits_of(other), p)
    alone = truth.best_shared(torch.arange(buckets.numel()).view_as(buckets))
    assert torch.allclose(truth.logits_of(alone), truth.logits)


def test_drift_replaces_ids():
    log = zipf_stream(4_000, fields=2, ids=50, drift=0.1, every=1_000, valid=10, held=5_000)
    truth = log.truth
    assert truth.weights.shape == (2, 1 + 50 + 3 * 5)
    alive = truth.frequency > 0
    assert alive.sum(1).tolist() == [50, 50] and not alive[:, 1:51].all()
    assert alive[:, -5:].all()  # the last new ids
    assert log.train.ids[:1_000].max() <= 50 < log.train.ids[1_000:2_000].max() <= 55
    assert alive.gather(1, log.test.ids.T.long()).all()
    assert torch.allclose(truth.frequency.sum(1), torch.ones(2, dtype=torch.float64))


def test_seeds():
    again = zipf_stream(4_000, fields=3, ids=50, valid=1_000, held=20_000, seed=1)
    assert torch.equal(again.train.ids, LOG.train.ids)
    other = zipf_stream(4_000, fields=3, ids=50, valid=1_000, held=20_000, seed=2)
    assert not torch.equal(other.truth.weights, LOG.truth.weights)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rows": 0}, "rows must be at least 1"),
        ({"ids": 1}, "ids must be at least 2"),
        ({"exponent": 0}, "exponent must be above 0"),
        ({"drift": 1.5}, r"drift must be in \[0, 1\]"),
    ],
)
def test_bad_arguments(values, message):
    with pytest.raises(ValueError, match=message):
        zipf_stream(**({"rows": 10} | values))
