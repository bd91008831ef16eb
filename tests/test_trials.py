"""Equal trials for all: seeds pair rows, every rate is tried once, budgets are met, edges are said."""

import math

import lightning as L
import pytest
import torch
from helpers.clicks import LOG, Net
from paperlab import loop, trials
from paperlab.ctr.baselines.dnn import DNN
from paperlab.ctr.baselines.fm import FM
from paperlab.ctr.worlds.noise_fields import noise_fields
from paperlab.data import Batches


class Points:
    """Rows (x, y) on a line with noise."""

    def __init__(self, n: int, seed: int):
        draw = torch.Generator().manual_seed(seed)
        self.x = torch.randn(n, generator=draw)
        self.y = 2 * self.x - 1 + 0.1 * torch.randn(n, generator=draw)

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows):
        return self.x[rows], self.y[rows]


class Line(L.LightningModule):
    """y = a x + b by SGD: the smallest model that `loop.fit` trains."""

    select = ("error", "lower")

    def __init__(self, lr: float = 0.1):
        super().__init__()
        self.lr, self.line = lr, torch.nn.Linear(1, 1)

    def error(self, x, y):
        return (self.line(x[:, None]).squeeze(1) - y).square().mean()

    def training_step(self, batch, batch_idx):
        return self.error(*batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)

    def check(self, data):
        pass

    def batches(self, part, batch_size, seed):
        return Batches(part, batch_size, seed)

    def count(self, batch):
        return len(batch[0])

    def evaluate(self, data, part):
        points = getattr(data, part)
        return {"error": self.error(points.x, points.y).item(), "lr_seen": self.lr}

    def count_parameters(self):
        return {"dense": 2}


DATA = loop.Parts(Points(64, 0), Points(32, 1), Points(32, 2))
QUIET = {"batch_size": 16, "precision": "32-true", "accelerator": "cpu"}


def compare(data=DATA, builders=None, **options):
    made = []

    def build(data, width):
        made.append(width)
        return Line()

    options = {"seeds": [0, 1], "epochs": 2} | QUIET | options
    return list(trials.compare(builders or {"a": build, "b": build}, data, **options)), made


def test_rows_hold_the_test_part_and_pair_by_seed():
    found, made = compare(seeds=[3, 5])
    rows = [row for row, _ in found]
    assert [(r["model"], r["seed"]) for r in rows] == [("a", 3), ("a", 5), ("b", 3), ("b", 5)]
    assert rows[0]["error"] == rows[2]["error"] != rows[1]["error"]  # one model under two names
    assert made == [None] * 4 and all(r["width"] is None and r["dense"] == 2 for r in rows)
    assert rows[0]["valid_error"] != rows[0]["error"]
    for row, model in found:
        assert row["error"] == model.evaluate(DATA, "test")["error"]
    torch.manual_seed(5)
    model = Line(1e-3)
    alone = loop.fit(model, DATA, epochs=2, seed=5, **QUIET)
    assert alone.test["error"] == rows[1]["error"]


def test_every_rate_is_tried_at_the_first_seed_only_and_the_best_is_taken():
    found, made = compare(rates=(1e-4, 0.1, 1e-3), seeds=[0, 1, 2])
    assert len(made) == 2 * (3 + 2)  # the best run of the first seed is not run again
    assert {row["lr"] for row, _ in found} == {0.1}
    assert all(row["edge"] for row, _ in found)
    found, _ = compare(rates=(1e-4, 0.1, 1e-3, 0.9))
    assert [row["edge"] for row, _ in found] == [False] * 4
    found, _ = compare(rates=(0.1,))
    assert [row["edge"] for row, _ in found] == [False] * 4  # nothing was searched


def test_a_grid_whose_end_is_best_is_continued():
    found, made = compare(rates=(1e-4, 1e-3), widen=5, builders={"a": lambda _, w: Line()})
    assert found[0][0]["lr"] == pytest.approx(0.1) and not found[0][0]["edge"]  # of .0001 ... 1
    found, _ = compare(rates=(1e-4, 1e-3), widen=1)
    assert found[0][0]["lr"] == pytest.approx(0.01) and found[0][0]["edge"]
    low = {"metric": ("error", "higher"), "widen": 2}  # the slowest rate wins: down, twice
    found, _ = compare(rates=(1e-2, 1e-3), **low)
    assert found[0][0]["lr"] == pytest.approx(1e-5) and found[0][0]["edge"]
    found, made = compare(rates=(0.1, 1e-3, 1e20), widen=3, seeds=[0], epochs=3)
    assert len(made) == 6 and not found[0][0]["edge"]  # one that diverges bounds the grid too
    _, made = compare(rates=(0.1,), widen=3, seeds=[0])
    assert len(made) == 2  # one rate is no grid; both builders
    with pytest.raises(ValueError, match="widen must be at least 0, got -1"):
        compare(widen=-1)


def test_another_metric_and_direction_choose():
    found, _ = compare(rates=(1e-3, 0.1), metric=("error", "higher"))
    assert {row["lr"] for row, _ in found} == {1e-3}
    found, _ = compare(rates=(1e-3, 0.1), metric=("lr_seen", "higher"))
    assert {row["lr"] for row, _ in found} == {0.1} and "valid_lr_seen" in found[0][0]
    with pytest.raises(ValueError, match="metric must be one of error, lr_seen, not 'auc'"):
        compare(rates=(1e-3, 0.1), metric=("auc", "higher"))
    with pytest.raises(ValueError, match="better must be one of higher, lower, not 'up'"):
        compare(rates=(1e-3, 0.1), metric=("error", "up"))


def test_a_rate_that_diverges_or_gives_nan_loses():
    found, _ = compare(rates=(1e20, 0.1, 1e-3), epochs=3)
    assert {row["lr"] for row, _ in found} == {0.1}
    with pytest.raises(FloatingPointError, match="loss is"):
        compare(rates=(1e20, 1e21), epochs=3)

    class Silent(Line):
        def evaluate(self, data, part):
            scores = super().evaluate(data, part)
            return scores if self.lr < 0.01 else scores | {"error": math.nan}

    found, _ = compare(builders={"s": lambda data, width: Silent()}, rates=(0.1, 1e-3, 1e-4))
    assert {row["lr"] for row, _ in found} == {1e-3}
    with pytest.raises(FloatingPointError, match="s: the metric is NaN or infinite at every rate"):
        compare(builders={"s": lambda data, width: Silent()}, rates=(0.1, 0.2))


def test_without_a_test_part_rows_hold_what_there_is():
    found, _ = compare(loop.Parts(DATA.train, DATA.valid))
    assert found[0][0]["error"] == found[0][0]["valid_error"]

    class Blind(Line):
        select = None

    blind = {"blind": lambda data, width: Blind()}
    watch = {"watch": lambda model: {"slope": model.line.weight.item()}}
    found, _ = compare(DATA.train, blind, rates=(1e-3, 0.1), metric=("slope", "higher"), **watch)
    assert {row["lr"] for row, _ in found} == {0.1}
    assert found[0][0]["slope"] == found[0][1].line.weight.item()
    with pytest.raises(ValueError, match="metric must be given for a model that selects by none"):
        compare(DATA.train, blind, rates=(1e-3, 0.1))


def test_widths_meet_the_budget_within_5_percent():
    log = noise_fields(400, 0, signal=2, pairs=1, vocabulary=5, strength=3.0)
    builders = {
        "one": lambda schema, width: DNN(schema, 4, widths=(width,)),
        "two": lambda schema, width: DNN(schema, 4, widths=(width, width)),
    }
    options = {"seeds": [0], "precision": "32-true", "accelerator": "cpu"}
    rows = [row for row, _ in trials.compare(builders, log, budget=2_000, **options)]
    assert all(abs(row["dense"] / 2_000 - 1) <= 0.05 and row["log"] == log.name for row in rows)
    assert rows[0]["width"] > rows[1]["width"] and rows[0]["embedding"] == rows[1]["embedding"]
    (row, _) = next(trials.compare({"FM": lambda schema, _: FM(schema, 4)}, log, **options))
    assert row["width"] is None and row["dense"] == 1
    with pytest.raises(ValueError, match="no width in"):
        next(trials.compare(builders, log, budget=3, **options))


@pytest.mark.parametrize("name", ["seeds", "rates", "builders"])
def test_empty_lists_are_refused(name):
    options = {"seeds": [0], "rates": [0.1]} | ({name: []} if name != "builders" else {})
    builders = {} if name == "builders" else {"a": lambda data, width: Line()}
    with pytest.raises(ValueError, match=f"{name} must not be empty"):
        next(trials.compare(builders, DATA, **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": [0, 1, 0]}, "seeds must differ, got 0 twice"),
        ({"seeds": [0, -1]}, "seeds must be at least 0, got -1"),
        ({"seeds": [0.5]}, "seeds must be a whole number, got 0.5"),
        ({"rates": [0.1, 0.01, 0.1]}, "rates must differ, got 0.1 twice"),
        ({"rates": [0.1, -0.1]}, "rates must be above 0 and finite, got -0.1"),
        ({"rates": [0.0]}, "rates must be above 0 and finite, got 0.0"),
        ({"rates": [math.nan]}, "rates must be above 0 and finite, got nan"),
        ({"rates": [math.inf]}, "rates must be above 0 and finite, got inf"),
        ({"metric": ("loss", "least")}, "better must be one of higher, lower, not 'least'"),
    ],
)
def test_seeds_and_rates_are_refused_before_anything_is_trained(options, message):
    built = []
    builders = {"a": lambda data, width: built.append(Line()) or built[-1]}
    with pytest.raises(ValueError, match=message) as raised:
        next(trials.compare(builders, DATA, **{"seeds": [0], **options}))
    assert not built and "\n" not in str(raised.value)


def test_a_model_whose_scores_turn_nan_at_the_last_step_loses_to_other_rates():
    """Its losses were finite: only the validation's scores show it."""

    class Blows(Net):
        def optimizer_step(self, *args):
            super().optimizer_step(*args)
            if self.lr > 0.5:
                self.mlp[0].weight.data.fill_(math.nan)

    options = {"seeds": [0], "rates": [0.6, 0.01], "batch_size": len(LOG.train), "epochs": 1}
    options |= {"precision": "32-true", "accelerator": "cpu"}
    ((row, _),) = trials.compare({"a": lambda schema, _: Blows(schema)}, LOG, **options)
    assert row["lr"] == 0.01
    with pytest.raises(FloatingPointError, match="valid: logits are NaN; training has diverged"):
        next(
            trials.compare(
                {"a": lambda schema, _: Blows(schema)}, LOG, **options | {"rates": [1.0]}
            )
        )


def test_milliseconds_is_the_median_after_a_warm_up(monkeypatch):
    ticks = iter([0.0, 9.0, 10.0, 10.003, 20.0, 20.001, 30.0, 30.5])
    monkeypatch.setattr(trials.time, "perf_counter", lambda: next(ticks))
    calls = []
    assert trials.milliseconds(lambda: calls.append(1), passes=3) == pytest.approx(3.0)
    assert len(calls) == 4
    with pytest.raises(ValueError, match="passes must be at least 3, got 2"):
        trials.milliseconds(lambda: None, passes=2)


def test_calls_that_are_timed_together_take_turns():
    order, threads = [], torch.get_num_threads()
    calls = {k: lambda k=k: order.append(k * torch.get_num_threads()) for k in "ab"}
    torch.set_num_threads(2)
    found = trials.milliseconds_in_turn(calls, laps=3)
    assert found.keys() == calls.keys() and min(found.values()) >= 0
    assert "".join(order) == ("a" * 4 + "b" * 4) * 3  # one warms up, three are timed; one thread
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    with pytest.raises(ValueError, match="laps must be at least 3"):
        trials.milliseconds_in_turn(calls, laps=2)
