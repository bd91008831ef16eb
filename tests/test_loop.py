"""One call trains; the same seeds give the same numbers; faults stop it with a usable message."""

import json
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.clicks import LOG, Net
from paperlab import hardware, loop
from paperlab.data import Batches
from paperlab.interest.worlds.interest_sequences import interest_sequences
from paperlab.nn.click import ClickModel


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


def test_the_rate_falls_at_every_check_that_is_not_the_best():
    _, run = fit(epochs=12, decay=0.5)
    auc, rate = ([r[k] for r in run.history] for k in ("auc", "lr"))
    fell = [k for k in range(1, 12) if rate[k] < rate[k - 1]]
    assert rate[0] == 0.01 and fell
    for k in range(1, 12):
        better = k == 1 or auc[k - 1] > max(auc[: k - 1])
        assert rate[k] == pytest.approx(rate[k - 1] * (1 if better else 0.5))
    with pytest.raises(ValueError, match=r"decay must be in \(0, 1\]"):
        fit(decay=0.0)


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


def test_bad_settings_are_refused_in_one_line():
    for options in ({"epochs": 0}, {"batch_size": 0}, {"checks_per_epoch": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            fit(**options)
    with pytest.raises(ValueError, match="must end in .ckpt"):
        fit(checkpoint="here.pt")


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
