"""One call trains; the same seeds give the same numbers; faults stop it with a usable message."""

import dataclasses
import itertools
import json
import math
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from helpers.clicks import LOG, Net
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from paperlab import hardware, loop
from paperlab.data import Batches
from paperlab.interest.worlds.interest_sequences import interest_sequences
from paperlab.nn.click import ClickModel
from paperlab.nn.mlp import MLP


def fit(sparse=True, dropout=0.0, log=LOG, **options):
    torch.manual_seed(0)
    model = Net(log.schema, sparse, dropout)
    settings = {"epochs": 4, "batch_size": 128, "precision": "32-true", "accelerator": "cpu"}
    return model, loop.fit(model, log, **settings | options)


def test_fit_learns_what_is_planted_and_reports_it():
    _, run = fit(epochs=8)
    assert run.test["auc"] > 0.5 + 0.85 * (LOG.truth.bayes_auc - 0.5)
    assert run.steps == 8 * len(Batches(LOG.train, 128)) and len(run.history) == 8
    assert run.samples_per_second == pytest.approx(8 * 4800 / run.seconds)
    assert run.parameters == {"dense": 8 * 16 + 16 + 16 + 1, "embedding": 18 * 4}
    assert run.history[-1]["train_loss"] < run.history[0]["train_loss"]


def test_same_seed_same_numbers_and_another_seed_another_order():
    first, second, other = (fit(dropout=0.2, seed=s)[1] for s in (0, 0, 1))
    assert first.test == second.test
    assert first.test != other.test


def test_rows_optimiser_trains_like_the_dense_one():
    assert fit()[1].test["auc"] == pytest.approx(fit(sparse=False)[1].test["auc"], abs=2e-4)


def test_the_best_weights_are_kept_and_patience_never_reads_the_test_part():
    model, run = fit(epochs=30, patience=2, checks_per_epoch=2)
    best = max(r["auc"] for r in run.history)
    assert run.valid["auc"] == best
    assert len(run.history) < 60
    assert run.history[-3]["auc"] == best
    assert run.test == model.evaluate(LOG, "test")


def test_the_best_weights_are_kept_without_the_frozen_ones():
    """Of a large model with a small trained part, only that part is copied."""
    torch.manual_seed(0)
    model = Net(LOG.schema, True, 0.0)
    model.embed.table.weight.requires_grad_(False)
    before = model.embed.table.weight.clone()
    kept = []

    class Peek(Callback):
        def on_train_end(self, trainer, model):
            (own,) = (c for c in trainer.callbacks if isinstance(c, loop._Checks))
            kept.extend(own.best)

    run = loop.fit(model, LOG, epochs=6, batch_size=128, patience=2, callbacks=Peek())
    assert "embed.table.weight" not in kept and len(kept) == len(model.state_dict()) - 1
    assert torch.equal(model.embed.table.weight, before)
    assert run.valid["auc"] == max(r["auc"] for r in run.history)


def test_the_rate_falls_at_every_check_that_is_not_the_best():
    _, run = fit(epochs=12, decay=0.5)
    auc, rate = ([r[k] for r in run.history] for k in ("auc", "lr"))
    fell = [k for k in range(1, 12) if rate[k] < rate[k - 1]]
    assert rate[0] == 0.01 and fell
    for k in range(1, 12):
        better = k == 1 or auc[k - 1] > max(auc[: k - 1])
        assert rate[k] == pytest.approx(rate[k - 1] * (1 if better else 0.5))


@pytest.mark.parametrize(
    ("device", "world", "free", "moves"),
    [
        ("cuda", 1, 400, True),
        ("cuda", 1, 399, False),
        ("cuda", 2, 400, False),
        ("cpu", 1, 400, False),
    ],
)
def test_a_log_moves_to_the_one_gpu_that_holds_it_twice(monkeypatch, device, world, free, moves):
    split = SimpleNamespace(nbytes=200, to=lambda place: f"on {place}")
    strategy = SimpleNamespace(root_device=torch.device(device))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 1000))
    found = hardware.resident(split, SimpleNamespace(strategy=strategy, world_size=world))
    assert found == "on cuda" if moves else found is split


class Recent(ClickModel):
    """Scores a target by its likeness to the events of the last days."""

    def __init__(self, schema):
        super().__init__(schema, 4, lr=0.03)
        torch.nn.init.normal_(self.embed.table.weight, 0, 0.3)
        self.bias = torch.nn.Parameter(torch.zeros(()))

    def forward(self, batch):
        events, target, mask, _ = self.embed.sequence(batch)
        weight = mask * torch.exp(-batch.elapsed / 24)
        return self.bias + ((events * weight[..., None]).sum(1) * target).sum(1)


HISTORIES = interest_sequences(6_000, decay="time", lengths=(0, 12), categories=5, items=1)


def test_histories_and_their_times_reach_the_model_in_training_and_scoring():
    def run():
        torch.manual_seed(0)
        model = Recent(HISTORIES.schema)
        options = {"precision": "32-true", "accelerator": "cpu"}
        return model, loop.fit(model, HISTORIES, epochs=6, batch_size=128, **options)

    (model, first), (_, second) = run(), run()
    assert first.test == second.test
    assert first.test["auc"] > 0.5 + 0.7 * (HISTORIES.truth.bayes_auc - 0.5)
    with torch.no_grad():
        whole = model(HISTORIES.test.take(slice(None)))
    for batch_size in (8192, 7):  # rows are scored by length and come back in their own order
        found = model.predict(HISTORIES.test, batch_size)
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)
    assert HISTORIES.test.to("cpu").take(slice(0, 3)).to("cpu").elapsed is not None


def test_a_loss_that_is_not_finite_stops_with_step_batch_and_parameter():
    class Breaks(Net):
        def training_step(self, batch, batch_idx):
            if batch_idx == 5:
                self.mlp[0].weight.data[0, 0] = torch.nan
            return super().training_step(batch, batch_idx)

    with pytest.raises(
        FloatingPointError, match=r"loss is nan at step 5 \(batch 5 of epoch 0\).*mlp.0.weight"
    ):
        loop.fit(Breaks(LOG.schema), LOG, batch_size=128, precision="32-true")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(
            ({name: 0}, f"{name} must be at least 1, got 0")
            for name in ("batch_size", "checks_per_epoch", "patience", "checkpoint_every")
        ),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"epochs": None, "steps": 0}, "steps must be at least 1, got 0"),
        ({"epochs": 1, "steps": 5}, "epochs or steps must be given, not both"),
        ({"checkpoint": "here.pt"}, "checkpoint must be a file that ends in .ckpt, got here.pt"),
        ({"limit_train_batches": 0}, "limit_train_batches must be at least 1, got 0"),
        ({"limit_train_batches": -3}, "limit_train_batches must be at least 1, got -3"),
        ({"limit_train_batches": 1.5}, r"limit_train_batches must be in \(0, 1\], got 1.5"),
        ({"limit_train_batches": math.nan}, r"limit_train_batches must be in \(0, 1\], got nan"),
        ({"limit_train_batches": 2, "epochs": None, "steps": 3}, "steps or limit_train_batches"),
        ({"accumulate_grad_batches": 0}, "accumulate_grad_batches must be at least 1, got 0"),
        ({"accumulate_grad_batches": 1.5}, "accumulate_grad_batches must be a whole number"),
        ({"max_steps": 5}, "max_steps must not be given: epochs, steps or patience"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"seed": 0.5}, "seed must be a whole number, got 0.5"),
        ({"decay": math.nan}, r"decay must be in \(0, 1\], got nan"),
        ({"decay": 0.0}, r"decay must be in \(0, 1\], got 0.0"),
    ],
)
def test_bad_settings_are_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message):
        fit(**options)


def relabelled(change, part="valid"):
    """LOG with other labels in one part."""
    split = getattr(LOG, part)
    values = split.values.clone()
    values[:, split.n_numeric] = change(values[:, split.n_numeric])
    return dataclasses.replace(LOG, **{part: dataclasses.replace(split, values=values)})


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("train", lambda y: 2 * y - 1, "train: labels must be 0 or 1, got -1"),
        ("train", lambda y: y + 1, "train: labels must be 0 or 1, got 2"),
        ("valid", lambda y: 100 * y, "valid: labels must be 0 or 1, got 100"),
        ("valid", lambda y: y * 0, "valid must hold both classes.*600 rows of one class"),
    ],
)
def test_labels_that_cannot_be_judged_are_refused_before_training(part, change, message):
    with pytest.raises(ValueError, match=message) as raised:
        fit(log=relabelled(change, part))
    assert "\n" not in str(raised.value)


def test_a_metric_that_is_nan_is_no_better_and_counts_for_nothing():
    class Gaps(Net):
        """The AUC rises to check 2, and is NaN at checks 1, 3, 4, 5."""

        checked = 0

        def evaluate(self, log, part):
            self.checked += 1
            auc = {2: 0.9}.get(self.checked, math.nan if self.checked < 6 else 0.5)
            return {"auc": auc}

    torch.manual_seed(0)
    options = {"epochs": 20, "batch_size": 2000, "precision": "32-true", "accelerator": "cpu"}
    run = loop.fit(Gaps(LOG.schema), LOG, patience=2, decay=0.5, **options)
    assert [row["auc"] for row in run.history if row["auc"] < 1] == [0.9, 0.5, 0.5]
    assert len(run.history) == 7  # the two checks that count against patience are 6 and 7
    assert [row["lr"] for row in run.history] == [0.01] * 6 + [0.005]


# what Lightning's trainer takes -------------------------------------------------------------------


@pytest.mark.parametrize("limit", [7, 0.25])
def test_epochs_may_be_cut_short(limit):
    """Each epoch is a new draw of so many batches, with a check at its end."""
    batches = 7 if limit == 7 else 9  # of 38
    seen = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer, model, batch, batch_idx):
            seen.append((trainer.current_epoch, batch.ids))

    _, run = fit(epochs=3, limit_train_batches=limit, callbacks=Watch())
    assert run.steps == len(seen) == 3 * batches
    assert [(r["step"], r["epoch"]) for r in run.history] == [
        (batches * (k + 1), k) for k in range(3)
    ]
    for epoch in range(3):
        whole = Batches(LOG.train, 128, seed=0)
        whole.load_state_dict({"epoch": epoch, "start": 0})
        expected = [b.ids for b in whole][:batches]
        mine = [ids for e, ids in seen if e == epoch]
        assert all(torch.equal(a, b) for a, b in zip(expected, mine, strict=True))


def test_callbacks_and_loggers_pass_through(tmp_path):
    class Count(Callback):
        batches = 0

        def on_train_batch_end(self, *_):
            self.batches += 1

    counts = [Count(), Count()]
    options = {"logger": CSVLogger(tmp_path), "enable_progress_bar": False}
    _, run = fit(epochs=1, callbacks=counts, **options)
    assert [c.batches for c in counts] == [run.steps] * 2


def test_a_run_that_a_callback_ends_between_checks_has_a_last_check():
    class Enough(Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.global_step >= 5

    _, run = fit(epochs=2, callbacks=Enough())
    assert (run.steps, [row["step"] for row in run.history]) == (5, [5])
    assert run.history[-1]["auc"] == run.valid["auc"]


def test_accumulated_batches_give_the_steps_and_history_of_large_ones():
    """4,800 rows: batches of 600 = 4 x 150; the last step of an epoch has 3 of 5 batches of 160."""
    (one, whole), (four, parts) = (
        fit(batch_size=600 // k, accumulate_grad_batches=k, epochs=2) for k in (1, 4)
    )
    assert parts.steps == whole.steps == 16
    for a, b in zip(whole.history, parts.history, strict=True):
        assert b["step"] == a["step"]
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-4)
        assert b["auc"] == pytest.approx(a["auc"], abs=2e-3)
    for a, b in zip(one.parameters(), four.parameters(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-3)
    _, run = fit(batch_size=160, accumulate_grad_batches=7, epochs=1, checks_per_epoch=5)
    assert run.steps == 5 and [r["step"] for r in run.history] == [1, 2, 3, 4, 5]


def test_fewer_rows_than_a_batch_are_refused_where_processes_share_it(monkeypatch):
    monkeypatch.setattr(Batches, "_processes", staticmethod(lambda: (0, 2)))
    with pytest.raises(ValueError, match="batch_size must be at most the number of training rows"):
        fit(batch_size=5_000)


# steps, and data without parts --------------------------------------------------------------------


class World:
    """Endless draws (x, y = 3 x) by a seed and a place, for a model that no part judges."""

    def __init__(self, batch_size: int, seed: int):
        self.batch_size, self.seed, self.start = batch_size, seed, 0

    def __iter__(self):
        for step in itertools.count(self.start):
            draw = torch.Generator().manual_seed(1000 * self.seed + step)
            x = torch.randn(self.batch_size, generator=draw)
            yield x, 3 * x

    def load_state_dict(self, state):
        self.start = state["start"]


class Slope(L.LightningModule):
    select, lr = None, 0.1

    def __init__(self):
        super().__init__()
        self.slope = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        x, y = batch
        noise = 0.01 * torch.randn(())  # drawn from torch's own generator, as dropout is
        loss = (self.slope * x - y + noise).square().mean()
        return {"loss": loss, "metrics": {"slope": self.slope * 1.0}}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)

    def check(self, data):
        assert data == "a world"

    def batches(self, part, batch_size, seed):
        return World(batch_size, seed)

    def count(self, batch):
        return len(batch[0])

    def evaluate(self, data, part):
        raise AssertionError("there is no part")

    def count_parameters(self):
        return {"dense": 1}


def steps(**options):
    model, quiet = Slope(), {"precision": "32-true", "accelerator": "cpu"}
    return model, loop.fit(model, "a world", **quiet | {"batch_size": 8, "steps": 30} | options)


def test_a_world_without_parts_or_end_is_trained_on_by_steps():
    model, run = steps(
        checks_per_epoch=3, watch=lambda m: {"now": m.slope.item(), "on": m.training}
    )
    assert (run.steps, run.test, run.valid, run.interrupted) == (30, {}, {}, False)
    assert [row["step"] for row in run.history] == [10, 20, 30]
    assert run.history[-1]["now"] == model.slope.item() == pytest.approx(3, abs=0.05)
    assert not any(row["on"] for row in run.history) and model.training
    assert run.history[0]["train_slope"] < run.history[1]["train_slope"] < run.history[0]["now"] + 1
    assert run.samples_per_second * run.seconds == pytest.approx(30 * 8)
    with pytest.raises(ValueError, match="steps must be given for batches without an end"):
        steps(steps=None)
    with pytest.raises(ValueError, match="patience and decay need a validation part"):
        steps(patience=2)


def test_looking_changes_nothing_in_training():
    """More checks, and a watch that draws random numbers, leave the weights as they are."""
    once, _ = steps()
    often, run = steps(checks_per_epoch=10, watch=lambda m: {"drawn": torch.randn(3).sum().item()})
    assert len(run.history) == 10 and often.slope.item() == once.slope.item()


def test_steps_may_be_more_or_fewer_than_an_epoch():
    for wanted in (5, 38, 100):  # of 38 in an epoch
        _, run = fit(epochs=None, steps=wanted, checks_per_epoch=2)
        assert run.steps == wanted and len(run.history) == 2
    whole, _ = fit(epochs=2)
    by_steps, _ = fit(epochs=None, steps=76, checks_per_epoch=2)
    for a, b in zip(whole.parameters(), by_steps.parameters(), strict=True):
        assert torch.equal(a, b)


class StopAt(Callback):
    def __init__(self, batch: int):
        self.batch = batch

    def on_train_batch_start(self, trainer, model, batch, batch_idx):
        if batch_idx == self.batch:
            raise KeyboardInterrupt


def test_steps_resume_where_they_were_cut(tmp_path):
    path = tmp_path / "a.ckpt"
    whole, undisturbed = steps(checks_per_epoch=3)
    _, cut = steps(checks_per_epoch=3, checkpoint=path, checkpoint_every=1, callbacks=StopAt(13))
    assert cut.interrupted and cut.steps == 13
    again, resumed = steps(checks_per_epoch=3, checkpoint=path)
    assert again.slope.item() == whole.slope.item() and resumed.steps == 30
    kept = ("step", "train_loss", "train_slope")
    assert [[r[k] for k in kept] for r in resumed.history] == [
        [r[k] for k in kept] for r in undisturbed.history
    ]


# checkpoints --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.ckpt", "lr{a}.ckpt", "{step}-{epoch}.ckpt", "a b.v1.ckpt"])
def test_a_checkpoint_is_written_at_every_check_where_it_is_named(tmp_path, name):
    path, written = tmp_path / "new folder" / name, []
    watch = {"watch": lambda model: written.append(path.is_file()) or {}}
    fit(epochs=3, checkpoint=path, **watch)  # 114 steps, of which the first is a thousandth
    assert written == [False, True, True]
    assert [p.name for p in path.parent.iterdir()] == [name]


def test_what_is_done_is_not_trained_again(tmp_path):
    """A run that ended, or stopped early: asked for again, the same result without a step."""

    def trained(**options):
        seen = []

        class Count(Callback):
            def on_train_batch_start(self, *_):
                seen.append(1)

        model, run = fit(callbacks=Count(), **options)
        return len(seen), run.test, run.history, [p.detach() for p in model.parameters()]

    for kind in ({"epochs": 2}, {"epochs": 40, "patience": 2}):
        options = {"checkpoint": tmp_path / f"{len(kind)}.ckpt", "checkpoint_every": 1} | kind
        first, *result = trained(**options)
        assert 0 < first < 38 * 40
        for _ in range(2):
            again, *same = trained(**options)
            assert again == 0 and same[:2] == result[:2]
            assert all(torch.equal(a, b) for a, b in zip(same[2], result[2], strict=True))


def test_a_run_that_is_done_may_be_given_more_epochs(tmp_path):
    options = {"checkpoint": tmp_path / "a.ckpt", "dropout": 0.2}
    fit(epochs=2, **options)
    longer, run = fit(epochs=4, **options)
    straight, whole = fit(epochs=4, dropout=0.2)
    assert run.steps == whole.steps and run.test == whole.test
    for a, b in zip(longer.parameters(), straight.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="has 4 epochs, more than epochs=2"):
        fit(epochs=2, **options)


def deeper():
    torch.manual_seed(0)
    model = Net(LOG.schema)
    model.mlp = MLP(model.d_in, (16, 16), out=1)
    return model


def faster():
    model = Net(LOG.schema)
    model.lr = 0.02
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 500}, "batch_size 128, not 500"),
        ({"seed": 1}, "seed 0, not 1"),
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches 1, not 2"),
        ({"limit_train_batches": 9}, "limit_train_batches None, not 9"),
        ({"epochs": None, "steps": 50}, "steps None, not 50"),
        ({"log": relabelled(lambda y: 1 - y, "train")}, "its data differs"),
        ({"log": relabelled(lambda y: 1 - y, "valid")}, "its data differs"),
        ({"log": relabelled(lambda y: 1 - y, "test")}, "its data differs"),
        (
            {"log": dataclasses.replace(LOG, test=LOG.test.rows(slice(1, None)))},
            "its data differs",
        ),
        ({"model": deeper}, "its model differs"),
        ({"model": faster}, "its model differs"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change, message):
    path = tmp_path / "a.ckpt"
    settings = {"epochs": 2, "batch_size": 128, "precision": "32-true", "accelerator": "cpu"}
    settings |= {"checkpoint": path, "checkpoint_every": 1}
    loop.fit(Net(LOG.schema), LOG, callbacks=StopAt(5), **settings)
    before = path.read_bytes()
    model, log = change.pop("model", lambda: Net(LOG.schema))(), change.pop("log", LOG)
    with pytest.raises(
        ValueError, match="a.ckpt belongs to another run.*delete it, or name"
    ) as raised:
        loop.fit(model, log, **settings | change)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert path.read_bytes() == before


SCRIPT = """
    import sys, time, json, torch
    sys.path.insert(0, {here!r})
    from test_loop import Net, LOG
    from paperlab import loop
    class Slow(Net):
        def training_step(self, batch, batch_idx):
            {slow}
            return super().training_step(batch, batch_idx)
    if __name__ == "__main__":
        torch.manual_seed(0)
        model = Slow(LOG.schema, dropout={dropout})
        run = loop.fit(model, LOG, epochs=3, batch_size={batch_size}, precision="32-true",
                        accelerator="cpu", **{options!r})
        if model.global_rank == 0:
            print(json.dumps({{"auc": run.test["auc"], "interrupted": run.interrupted,
                              "steps": run.steps, "history": len(run.history)}}), flush=True)
            torch.save(model.state_dict(), {weights!r})
"""


def script(
    folder: Path, slow="pass", weights="w.pt", dropout=0.2, batch_size=128, **options
) -> list[str]:
    path, here, weights = folder / f"run_{weights}.py", str(Path(__file__).parent), folder / weights
    text = textwrap.dedent(SCRIPT).format(**locals() | {"weights": str(weights)})
    path.write_text(text)
    return [sys.executable, str(path)]


def start(folder: Path, checkpoint_at: Path, **options) -> subprocess.Popen:
    """Start a slowed run and come back two seconds after a file says that it is under way."""
    slow = f"open({str(folder / 'started')!r}, 'w').close(); time.sleep(0.1)"
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(script(folder, slow=slow, **options), **pipe)
    deadline = time.time() + 120
    while not checkpoint_at.is_file() and time.time() < deadline:
        time.sleep(0.05)
    time.sleep(2)
    return process


def result(out: str) -> dict:
    return json.loads(out.strip().splitlines()[-1])


def test_a_killed_run_resumes_to_the_same_metrics(tmp_path):
    """kill -9 in the middle of an epoch; the resumed run ends where the undisturbed one does."""
    options = {"checkpoint": str(tmp_path / "a.ckpt"), "checkpoint_every": 10}
    whole = subprocess.run(
        script(tmp_path, weights="whole.pt", **options | {"checkpoint": str(tmp_path / "b.ckpt")}),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    victim = start(tmp_path, checkpoint_at=tmp_path / "a.ckpt", **options)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    again = subprocess.run(script(tmp_path, **options), capture_output=True, text=True, check=True)
    expected, found = result(whole.stdout), result(again.stdout)
    assert found == expected
    states = [torch.load(tmp_path / n, weights_only=True) for n in ("whole.pt", "w.pt")]
    for name, weight in states[0].items():
        torch.testing.assert_close(states[1][name], weight)


def test_ctrl_c_leaves_a_usable_result(tmp_path):
    victim = start(tmp_path, checkpoint_at=tmp_path / "started", checks_per_epoch=10)
    victim.send_signal(signal.SIGINT)
    out, err = victim.communicate(timeout=60)
    assert victim.returncode == 0, err
    found = result(out)
    assert found["interrupted"] and 0 < found["steps"] < 3 * 38
    assert found["history"] >= 1 and found["auc"] > 0.5


def test_two_processes_give_the_weights_of_one(tmp_path):
    """DDP on a CPU: the same global batches, so the same weights; dense and sparse gradients."""
    for weights, options in (("one.pt", {}), ("two.pt", {"devices": 2, "strategy": "ddp"})):
        # no dropout (each process draws its own), and only whole batches
        command = script(tmp_path, weights=weights, dropout=0.0, batch_size=120, **options)
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    one, two = (torch.load(tmp_path / n, weights_only=True) for n in ("one.pt", "two.pt"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize(
    ("known", "wanted"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, "bf16-mixed"),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, "32-true"),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}, "bf16-mixed"),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False}, "32-true"),
        ({}, "32-true"),
    ],
)
def test_bf16_is_taken_where_it_is_faster(monkeypatch, known, wanted):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert hardware.best_precision("cpu") == wanted
