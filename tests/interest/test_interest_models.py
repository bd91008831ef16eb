"""All models of a history: padding, order, empty histories, gradients, one head, faults."""

import pytest
import torch
from paperlab.data import Batch, Field, Schema
from paperlab.interest.baselines.average import AveragePooling
from paperlab.interest.baselines.bst import BST
from paperlab.interest.baselines.dien import DIEN
from paperlab.interest.baselines.din import DIN
from paperlab.interest.baselines.sasrec import SASRec
from paperlab.interest.tin import TIN
from torch.nn import functional as F

LENGTH = 6
SCHEMA = Schema(
    (
        Field("item", size=40),
        Field("category", size=7),
        Field("hour", size=5),
        Field("price", "numeric"),
        Field("items", "sequence", length=LENGTH, shares="item"),
        Field("categories", "sequence", length=LENGTH, shares="category"),
    )
)
MODELS = {
    "average": AveragePooling,
    "average x target": lambda s: AveragePooling(s, tr=True),
    "TIN": TIN,
    "TIN interval": lambda s: TIN(s, encoding="interval"),
    "TIN absolute": lambda s: TIN(s, encoding="absolute"),
    "TIN reversed": lambda s: TIN(s, encoding="reversed"),
    "TIN code": lambda s: TIN(s, variant="code"),
    "TIN mha": lambda s: TIN(s, variant="mha"),
    "TIN without time": lambda s: TIN(s, tte=False),
    "DIN": lambda s: DIN(s, attention=(8, 5)),
    "DIN raw": lambda s: DIN(s, attention=(8,), softmax=False),
    "DIN + TR": lambda s: DIN(s, attention=(8,), tr=True),
    "DIN + position": lambda s: DIN(s, attention=(8,), encoding="absolute"),
    "DIEN": DIEN,
    "BST": BST,
    "SASRec": SASRec,
}
BLIND = ("average", "average x target", "TIN without time", "DIN", "DIN raw", "DIN + TR")
every = pytest.mark.parametrize("name", MODELS)


def make(name):
    """A model away from its initial values, in evaluation mode."""
    torch.manual_seed(0)
    model = MODELS[name](SCHEMA)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn(p.shape, generator=draw)
    return model.eval()


def batch(lengths=(6, 3, 1, 0), longest=LENGTH):
    """Rows with histories of given lengths, padded in front."""
    draw, n = torch.Generator().manual_seed(2), len(lengths)
    ids = torch.stack(
        [torch.randint(1, f.size, (n,), generator=draw) for f in SCHEMA.categorical], 1
    )
    history = torch.stack(
        [torch.randint(1, f.size, (n, LENGTH), generator=draw) for f in SCHEMA.categorical[:2]], 2
    )
    elapsed = torch.rand(n, LENGTH, generator=draw).cumsum(1).flip(1) * 50
    there = torch.arange(LENGTH, 0, -1) <= torch.tensor(lengths)[:, None]
    history, elapsed = (history * there[:, :, None])[:, -longest:], (elapsed * there)[:, -longest:]
    labels = torch.arange(n)[:, None] % 2
    numeric = torch.rand(n, 1, generator=draw)
    return Batch(ids.int(), numeric, labels.float(), history.int(), elapsed)


@every
def test_padding_and_company_change_nothing(name):
    model, rows = make(name), batch()
    logits = model(rows)
    assert logits.shape == (4,) and logits.isfinite().all() and logits.std() > 1e-3
    alone = rows._replace(
        **{k: getattr(rows, k)[1:2] for k in ("ids", "numeric", "labels")},
        history=rows.history[1:2, -3:], elapsed=rows.elapsed[1:2, -3:],
    )  # fmt: skip
    torch.testing.assert_close(model(alone), logits[1:2], rtol=1e-5, atol=1e-5)
    wide = rows._replace(
        history=F.pad(rows.history, (0, 0, 4, 0)), elapsed=F.pad(rows.elapsed, (4, 0))
    )
    torch.testing.assert_close(model(wide), logits, rtol=1e-5, atol=1e-5)


@every
def test_an_unknown_event_is_padding_wherever_it_stands(name):
    """Id 0 is padding by the schema: between known events, and as the latest one, too."""
    model, rows = make(name), batch((6, 6))
    base = model(rows)
    for place in (0, 3, 6):
        known = [k for k in range(7) if k != place]
        history = torch.zeros(2, 7, 2, dtype=torch.int32)
        elapsed = torch.zeros(2, 7)
        history[:, known], elapsed[:, known] = rows.history, rows.elapsed
        found = model(rows._replace(history=history, elapsed=elapsed))
        torch.testing.assert_close(found, base, rtol=1e-5, atol=1e-5)
    empty = model(rows._replace(history=rows.history * 0, elapsed=rows.elapsed * 0))
    assert (empty - base).abs().max() > 1e-4


@pytest.mark.parametrize("kind", [AveragePooling, TIN, DIN, DIEN, BST, SASRec])
@pytest.mark.parametrize("std", [None, 0.001, 0.2])
def test_the_initial_scale_is_an_argument(kind, std):
    torch.manual_seed(0)
    model = kind(SCHEMA, 16, **({} if std is None else {"std": std}))
    weights = model.embed.table.weight.detach()
    assert weights.std().item() == pytest.approx(0.05 if std is None else std, rel=0.1)


@every
def test_order_counts_where_time_is_encoded(name):
    model, rows = make(name), batch((6, 6))
    shuffled = rows._replace(history=rows.history[:, [3, 1, 5, 0, 2, 4]])
    difference = (model(shuffled) - model(rows)).abs().max().item()
    if name in BLIND:
        assert difference < 1e-5
    else:
        assert difference > 1e-4


def test_events_may_be_shuffled_together_with_their_times():
    model, rows = make("TIN interval"), batch((6, 6))
    order = [3, 1, 5, 0, 2, 4]
    both = rows._replace(history=rows.history[:, order], elapsed=rows.elapsed[:, order])
    torch.testing.assert_close(model(both), model(rows), rtol=1e-5, atol=1e-5)


@every
def test_padding_gets_no_gradient_and_everything_else_does(name):
    model, rows = make(name).train(), batch((6, 3, 1, 2))
    events, target, mask, _ = (
        t.detach().requires_grad_(t.is_floating_point()) for t in model.embed.sequence(rows)
    )
    model.interest(events, target, mask, rows.elapsed).square().sum().backward()
    assert (events.grad[~mask] == 0).all()
    assert (events.grad[mask].abs().sum(1) > 0).all()
    model.zero_grad()
    model.loss(rows).backward()
    without = [
        n
        for n, p in model.named_parameters()
        if p.grad is None or not p.grad.to_dense().abs().sum() > 0
    ]
    if name == "DIEN":  # softmax over the events cannot move a row of one event
        without = [n for n in without if n != "attend"]
    if hasattr(model, "unit"):  # a softmax does not see what is added to all of its scores
        without = [n for n in without if n != f"unit.rest.{len(model.unit.rest) - 1}.bias"]
    assert not without


@every
def test_an_empty_history_says_nothing(name):
    """No NaN, in the loss and its gradients; and what fills the padding does not matter."""
    model, rows = make(name).train(), batch((0, 0, 0, 0))
    model.loss(rows).backward()
    assert all(p.grad is None or p.grad.to_dense().isfinite().all() for p in model.parameters())
    model.eval()
    before = model(rows)
    with torch.no_grad():
        for start in model.embed.history_offsets.tolist():
            model.embed.table.weight[start] += 5  # id 0, which stands at padding
    torch.testing.assert_close(model(rows), before)


def test_a_model_without_any_of_its_parts_is_average_pooling():
    tin, average = make("TIN"), make("average")
    tin = TIN(SCHEMA, tte=False, ta=False, tr=False)
    tin.load_state_dict(average.state_dict())
    torch.testing.assert_close(tin(batch()), average(batch()))
    product = AveragePooling(SCHEMA, tr=True)
    tin = TIN(SCHEMA, tte=False, ta=False)
    tin.load_state_dict(product.state_dict())
    torch.testing.assert_close(tin(batch()), product(batch()))


def test_without_time_a_zero_table_changes_nothing():
    with_table, without = make("TIN"), TIN(SCHEMA, tte=False)
    with torch.no_grad():
        with_table.encoding.table.weight.zero_()
    state = {k: v for k, v in with_table.state_dict().items() if not k.startswith("encoding")}
    without.load_state_dict(state)
    torch.testing.assert_close(with_table(batch()), without(batch()))


def test_the_released_code_by_hand():
    model, rows = make("TIN code"), batch((6,))
    events, target, _, others = (t[0] for t in model.embed.sequence(rows))
    p = model.encoding.table.weight
    e, v = events + p[[6, 5, 4, 3, 2, 1]], target + p[0]
    alpha = (e @ v / 32**0.5).softmax(0)
    affine, project = model.project
    u = project((alpha[:, None] * e).sum(0) * affine.gain + affine.shift)
    z = torch.cat([u, v, u * v, others]) * model.head[0].gain + model.head[0].shift
    first, _, second, _, last = model.head[1]
    z = second(first(z).sigmoid()).sigmoid()
    bias = model.bias.table.weight[rows.ids[0, 0], 0]
    torch.testing.assert_close(model(rows)[0], last(z)[0] + bias)


def test_one_event_in_a_whole_batch_can_be_trained_on():
    make("DIN").train().loss(batch((1,))).backward()  # Dice's statistics of one event


def test_weights_are_those_of_the_model():
    for name in ("TIN", "TIN mha"):
        model, rows = make(name), batch((6, 2))
        alpha = model.weights(rows)
        torch.testing.assert_close(alpha.sum(1), torch.ones(2))
        assert (alpha[1, :4] == 0).all() and alpha.std() > 1e-3


def test_heads_are_one():
    """Equal width in, equal layers: what is not the history's is the same for all."""
    for name in MODELS:
        layers = [m for m in MODELS[name](SCHEMA).head.modules() if isinstance(m, torch.nn.Linear)]
        assert [m.out_features for m in layers] == [200, 80, 1]


def test_faults():
    for options, message in (
        ({"variant": "papers"}, "variant must be one of paper, code, mha, not 'papers'"),
        ({"encoding": "age"}, "encoding must be one of rank"),
        ({"variant": "code", "tr": False}, "switches of variant 'paper', not of 'code'"),
        ({"variant": "mha", "heads": 5}, "heads must divide the width 32, got 5"),
        ({"size": 0}, "size must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            TIN(SCHEMA, **options)
    for model, options, message in (
        (DIN, {"attention": ()}, "attention must be one or more whole numbers"),
        (SASRec, {"blocks": 0}, "blocks must be at least 1, got 0"),
        (BST, {"dim": 3}, "dim must be a multiple of 2, got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            model(SCHEMA, **options)
    with pytest.raises(ValueError, match="needs sequences"):
        TIN(Schema((Field("item", size=3),)))
    with pytest.raises(ValueError, match="shares="):
        TIN(Schema((Field("item", size=3), Field("s", "sequence", size=3, length=2))))
    with pytest.raises(ValueError, match="needs times"):
        MODELS["TIN interval"](SCHEMA)(batch()._replace(elapsed=None))
