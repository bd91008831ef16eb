"""ESDF: the sheet's worked numbers, the likelihood's identities, a slow version, what is refused."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import loop
from paperlab.feedback.esdf import ESDF, log_survival, negative_log_likelihood, posterior
from paperlab.feedback.worlds.delays import delays
from torch.nn import functional as F

LOG = delays("B", 3_000, held=1_000, seed=0)


def logit(p: float) -> torch.Tensor:
    return torch.tensor([math.log(p / (1 - p))], dtype=torch.float64)


def rows(*labels) -> torch.Tensor:
    return torch.tensor(labels, dtype=torch.float64)


def test_worked_numbers():
    """p = .2, q = .05, S = .3: w = .0909091 and -ln .165 = 1.80181."""
    delay = torch.tensor([[0.7, 0.3]], dtype=torch.float64).log()
    survival = log_survival(delay, torch.tensor([0.0]))
    assert survival.exp().item() == pytest.approx(0.3)
    assert posterior(logit(0.25), survival).item() == pytest.approx(0.0909091, abs=1e-6)
    nll = negative_log_likelihood(logit(0.2), logit(0.25), delay, rows((1, 0, 0, 0)))
    assert nll.item() == pytest.approx(1.80181, abs=1e-5)


def drawn(n: int, slots: int, seed: int):
    draw = torch.Generator().manual_seed(seed)
    return (
        torch.randn(n, generator=draw, dtype=torch.float64),
        torch.randn(n, generator=draw, dtype=torch.float64),
        torch.randn(n, slots, generator=draw, dtype=torch.float64),
    )


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(1, 9), st.integers(-1, 9), st.integers(0, 99))
def test_what_can_be_seen_has_probability_one(slots, elapsed, seed):
    p, v, f = drawn(1, slots, seed)
    seen = [(0, 0, 0, elapsed), (1, 0, 0, elapsed)]
    seen += [(1, 1, d, elapsed) for d in range(slots) if d <= elapsed]
    n = len(seen)
    nll = negative_log_likelihood(
        p.expand(n), v.expand(n), f.expand(n, -1), rows(*seen), reduction="none"
    )
    assert (-nll).exp().sum().item() == pytest.approx(1, abs=1e-9)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(1, 8), st.integers(0, 99))
def test_it_is_what_a_loop_computes(slots, seed):
    n = 12
    p, v, f = drawn(n, slots, seed)
    draw = torch.Generator().manual_seed(seed + 1)
    labels, slow = [], []
    for i in range(n):
        e = int(torch.randint(-1, slots + 1, (), generator=draw))
        y, z = i % 3 > 0, i % 3 == 2 and e >= 0
        d = min(e, slots - 1) if z else 0
        labels.append((int(y), int(z), d, e))
        pr, cv = p[i].sigmoid().item(), v[i].sigmoid().item()
        fs = (f[i].exp() / f[i].exp().sum()).tolist()
        survival = sum(share for s, share in enumerate(fs) if s > e)
        q = pr * cv
        slow.append(-math.log(q * fs[d] if z else pr - q + q * survival if y else 1 - pr))
    found = negative_log_likelihood(p, v, f, rows(*labels), reduction="none")
    assert found.tolist() == pytest.approx(slow, abs=1e-9)


def test_the_m_step_has_the_gradient_of_the_likelihood():
    """Fisher's identity, with w of the current parameters."""
    labels = rows(
        (1, 0, 0, 2), (1, 1, 1, 3), (0, 0, 0, 1), (1, 0, 0, 7), (1, 0, 0, 0), (1, 0, 0, -1)
    )
    gradients = []
    for em in (False, True):
        leaves = [t.requires_grad_() for t in drawn(6, 8, 1)]
        negative_log_likelihood(*leaves, labels, em=em).backward()
        gradients.append([t.grad for t in leaves])
    for direct, m_step in zip(*gradients, strict=True):
        assert direct.isfinite().all() and direct.abs().max() > 0
        torch.testing.assert_close(direct, m_step, atol=1e-9, rtol=1e-6)


def test_an_exact_em_step_never_raises_the_likelihood():
    """Tabular: one row's p, v, f are free, and the M-step has its closed form."""
    p, v, f = (t.mean(0, keepdim=True) for t in drawn(5, 4, 3))
    labels = rows(*[(1, 0, 0, 1)] * 5, *[(1, 1, d, 3) for d in (0, 0, 1, 3)], *[(0, 0, 0, 2)] * 4)
    n = len(labels)
    y, z, d, e = labels.unbind(1)
    before = math.inf
    for _ in range(30):
        many = p.expand(n), v.expand(n), f.expand(n, -1)
        now = negative_log_likelihood(*many, labels).item()
        assert now <= before + 1e-12
        before = now
        w = torch.where(z == 1, 1.0, posterior(many[1], log_survival(many[2], e))) * y
        share = torch.nn.functional.one_hot(d.long(), 4).double() * z[:, None]
        later = many[2].softmax(1) * (torch.arange(4) > e[:, None])
        late = later / later.sum(1, keepdim=True).clamp(min=1e-300)
        share = share + ((w - z)[:, None] * late)
        p = torch.logit(y.mean(0, keepdim=True))
        v = torch.logit(w.sum(0, keepdim=True) / y.sum())
        f = (share.sum(0, keepdim=True) / w.sum()).clamp(min=1e-12).log()


def test_when_all_has_arrived_it_is_esmm_with_a_cross_entropy_of_delays():
    p, v, f = drawn(4, 3, 2)
    labels = rows((1, 0, 0, 3), (1, 1, 2, 3), (0, 0, 0, 3), (1, 1, 0, 3))
    y, z = labels[:, 0], labels[:, 1]
    q = p.sigmoid() * v.sigmoid()
    click = torch.where(y == 1, F.logsigmoid(p), F.logsigmoid(-p))
    convert = torch.where(z == 1, (q / p.sigmoid()).log(), (1 - v.sigmoid()).log())
    slot = f.log_softmax(1).gather(1, labels[:, 2:3].long()).squeeze(1)
    expected = -(click + y * convert + z * slot)
    found = negative_log_likelihood(p, v, f, labels, reduction="none")
    torch.testing.assert_close(found, expected)
    assert posterior(v, log_survival(f, labels[:, 3])).abs().max() == 0


def test_before_anything_elapsed_a_click_says_nothing_of_its_conversion():
    p, v, f = drawn(1, 3, 2)
    survival = log_survival(f, torch.tensor([-1.0]))
    assert posterior(v, survival).item() == pytest.approx(v.sigmoid().item())
    nll = negative_log_likelihood(p, v, f, rows((1, 0, 0, -1)))
    assert nll.item() == pytest.approx(-F.logsigmoid(p).item())


def build(**options) -> ESDF:
    torch.manual_seed(0)
    return ESDF(LOG.schema, **{"lr": 4e-3} | options)


def test_em_and_likelihood_train_alike():
    found = []
    for em in (False, True):
        model = build(em=em)
        loop.fit(model, LOG, epochs=2, batch_size=512, precision="32-true", accelerator="cpu")
        found.append(model.predict(LOG.test))
    torch.testing.assert_close(*found, atol=2e-3, rtol=0)


def test_slot_zero_alone_is_esmm():
    """T = 0 with all delays on day 0: the likelihood of ESMM, whatever the delay tower."""
    rows = LOG.train.take(slice(0, 400))
    labels = rows.labels * rows.labels.new_tensor([1, 1, 0, 1])
    free, none = build(days=0), build(days=0, delay=None)
    none.load_state_dict(free.state_dict(), strict=False)
    torch.testing.assert_close(
        free.loss(rows._replace(labels=labels)), none.loss(rows._replace(labels=labels))
    )


def test_training_on_clicks_alone_leaves_impressions_out():
    rows = LOG.train.take(slice(0, 600))
    clicked = rows.labels[:, 0] == 1
    alone = rows._replace(
        ids=rows.ids[clicked], numeric=rows.numeric[clicked], labels=rows.labels[clicked]
    )
    model = build(entire=False)
    torch.testing.assert_close(model.loss(rows), model.loss(alone))
    model.loss(rows).backward()
    assert model.ctr[-1].weight.grad.abs().max() == 0


def test_it_starts_at_the_observed_rates_and_at_delays_corrected_for_the_cut():
    log = delays("A", 60_000, held=500, seed=1)
    from paperlab.feedback.worlds.delays import EARLY

    model = build(delay="global").start_at(log.train)
    assert model.delay.free.softmax(0).tolist() == pytest.approx(EARLY.tolist(), abs=0.03)
    y, z = log.train.labels[:, 0], log.train.labels[:, 1]
    assert model.ctr[-1].bias.sigmoid().item() == pytest.approx(y.mean().item(), abs=1e-4)
    assert model.cvr[-1].bias.sigmoid().item() == pytest.approx(z[y == 1].mean().item(), abs=1e-4)


@pytest.mark.parametrize("kind", ["free", "geometric", "global"])
def test_every_delay_is_a_distribution_of_the_stated_shape(kind):
    model = build(delay=kind).start_at(LOG.train)
    f = model.delays(LOG.test)
    assert f.shape == (1_000, 8) and torch.allclose(f.sum(1), torch.ones(1_000))
    ratio = f[:, 1:] / f[:, :-1]
    if kind == "geometric":
        torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-3, atol=1e-4)
    elif kind == "global":
        assert (f == f[0]).all()
    else:
        assert (ratio[0] - ratio[0, 0]).abs().max() > 0.1


def test_it_learns_and_observed_labels_understate():
    found = {}
    for name, delay in (("ESDF", "free"), ("ESMM", None)):
        model = build(delay=delay).start_at(LOG.train)
        loop.fit(model, LOG, epochs=4, batch_size=256, precision="32-true", accelerator="cpu")
        found[name] = model.predict(LOG.test).sigmoid().mean().item()
    assert found["ESMM"] < 0.9 * found["ESDF"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"delay": "weibull"}, "delay must be one of"),
        ({"days": -1}, "days must be at least 0"),
        ({"widths": (0,)}, "widths must be"),
    ],
)
def test_wrong_arguments_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        build(**wrong)


def test_labels_of_another_meaning_are_refused():
    import dataclasses

    def log(column, value):
        values = LOG.train.values.clone()
        values[:5, column] = value
        return dataclasses.replace(LOG, train=dataclasses.replace(LOG.train, values=values))

    for column, value, says in ((0, 2, "0 or 1"), (1, 1, "needs a click"), (2, 9, "days elapsed")):
        made = log(column, value)
        if column == 2:
            made.train.values[:5, :2] = 1
        if column == 1:
            made.train.values[:5, 0] = 0
        with pytest.raises(ValueError, match=says):
            build().check(made)
    wrong = dataclasses.replace(LOG.schema, labels=("a", "b", "c", "d"))
    with pytest.raises(ValueError, match="labels must be click"):
        ESDF(wrong)
    with pytest.raises(ValueError, match="no f"):
        build(delay=None).delays(LOG.test)
