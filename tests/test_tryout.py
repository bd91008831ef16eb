"""A paper's method on a data set: what is compared, judged and kept, and what is refused."""

import json
import os
import shutil
import signal
from dataclasses import replace
from importlib import import_module

import numpy as np
import polars as pl
import pytest
import torch
from helpers.clicks import LOG
from lightning import Callback
from paperlab import data, manifest, records, trials, trying, tryout, verdict
from paperlab.data.kinds import BanditLog, PreferenceTexts
from paperlab.data.own import shelf
from paperlab.interest.worlds.interest_sequences import interest_sequences
from paperlab.rl import bandit
from paperlab.scoring import clicks, preferences, sequences

ROOT = manifest.project_root()
PAPERS = [m for m in manifest.every(ROOT) if m.tryout]
FEW = {"rates": [0.01], "epochs": 1, "batch_size": 512}


def start():
    return records.Record("101_ssr", 1, "cpu")


@pytest.mark.parametrize("paper", PAPERS, ids=lambda m: m.slug)
def test_every_manifest_names_its_contenders(paper):
    terms = tryout.terms_of(paper.slug, {})
    contenders = import_module(f"paperlab.{terms['contenders']}").contenders()
    assert terms["kind"] in shelf.KINDS
    assert {terms["method"], *terms["rivals"]} <= set(contenders)
    assert terms["method"] not in terms["rivals"]
    if terms["kind"] in ("clicks", "sequences"):
        log = LOG if terms["kind"] == "clicks" else interest_sequences(500, seed=0)
        for name, build in contenders.items():
            torch.manual_seed(0)
            logits = build(log.schema, 8).predict(log.test)
            assert logits.isfinite().all(), name


@pytest.fixture(scope="module")
def tried():
    record, lines = start(), []
    found = tryout.run("ssr", LOG, record, seeds=[0, 1, 2], tell=lines.append, **FEW)
    return found, record, lines


def test_clicks_rows_units_and_claims(tried):
    found, record, lines = tried
    names = {"SSR-D", "SSR-S", "dense views", "DNN", "LR"}
    assert len(lines) == 3 * len(names)
    assert {(r["model"], r["seed"]) for r in found.scores.rows} == {
        (name, seed) for name in names | {"constant"} for seed in (0, 1, 2)
    }
    assert len(record["tryout noise_fields_0"]) == 18
    units = record.units["tryout noise_fields_0"]
    assert set(units.values) == {(name, seed) for name in names for seed in (0, 1, 2)}
    assert len(units.labels) == len(LOG.test)  # fewer than 20,000: all of them
    assert [c.text for c in found.claims] == [
        "SSR-D beats DNN on noise_fields_0",
        "SSR-D beats dense views on noise_fields_0",
    ]
    dense = {r["model"]: r["dense"] for r in found.scores.rows}
    assert all(abs(dense[name] - 50_000) <= 2_500 for name in names - {"LR"}) and dense["LR"] == 1


def test_the_constant_has_the_logloss_of_the_training_rate(tried):
    [row] = [r for r in tried[0].scores.rows if (r["model"], r["seed"]) == ("constant", 0)]
    rate, y = LOG.train.labels.double().mean(), LOG.test.labels[:, 0].double()
    slow = -(y * rate.log() + (1 - y) * (1 - rate).log()).mean()
    assert row["auc"] == 0.5 and row["logloss"] == pytest.approx(slow.item(), rel=1e-5)


def test_board_sentences_and_picture(tried):
    found = tried[0]
    board = found.board()
    assert board[-1]["model"] == "constant"
    first = found.sentences()[0]
    assert first.startswith("on noise_fields_0: SSR-D against DNN: ") and "3 seeds" in first
    assert found.sentences()[-1].endswith("s in all")
    assert "noise_fields" in found.figure().layout.title.text


def test_what_is_stored_is_judged_alike_later(tried, tmp_path):
    found, record, _ = tried
    record.verdicts = [j.stored() for j in found.judged]
    record.save_in(tmp_path)
    kept = json.loads((tmp_path / "record.json").read_text())
    again = verdict.rejudge(kept, tmp_path)
    assert [j.outcome for j in again] == [j.outcome for j in found.judged]


def test_only_keeps_the_method_and_the_named():
    found = tryout.run("ssr", LOG, start(), seeds=[0], only=["DNN"], **FEW)
    assert {r["model"] for r in found.scores.rows} == {"SSR-D", "DNN", "constant"}
    assert len(found.claims) == 1
    with pytest.raises(ValueError, match="only must be one of SSR-D, "):
        tryout.run("ssr", LOG, start(), only=["GPT"])
    with pytest.raises(ValueError, match="only must name a rival of SSR-D: DNN, dense views"):
        tryout.run("ssr", LOG, start(), only=["LR"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "ledger"}, "ledger takes no data set of yours; these do: .*ssr"),
        ({"name": "nobody"}, "no paper 'nobody'; there are: .*ssr"),
        ({"seeds": [1, 1]}, "seeds must be at least one, each once"),
        ({"seeds": []}, "seeds must be at least one"),
        ({"speed": 1}, "setting must be one of .*budget.*, not 'speed'"),
        ({"data": "gsm8k"}, "gsm8k holds problems; ssr takes clicks"),
        ({"data": "nothing"}, "no data set 'nothing'"),
    ],
)
def test_refused_in_one_line(arguments, message):
    given = {"name": "ssr", "data": LOG, "record": start()} | arguments
    with pytest.raises(ValueError, match=message) as caught:
        tryout.run(**given)
    assert "\n" not in str(caught.value)


def test_a_test_part_of_one_class_is_refused_before_training():
    negative = LOG.test.rows(LOG.test.labels[:, 0] == 0)
    with pytest.raises(ValueError, match=r"noise_fields_0.test has .* rows of one class"):
        tryout.run("ssr", replace(LOG, test=negative), start())


def test_small_logs_take_small_steps():
    parts = [LOG.train.rows(slice(0, n)) for n in (100, 4_000)]
    steps = [clicks.rows_a_step(replace(LOG, train=part)) for part in parts]
    assert steps == [64, 64] and clicks.rows_a_step(LOG) == max(64, len(LOG.train) // 100)


def test_a_sample_is_fixed_sorted_and_without_repeats():
    assert clicks.sample(5, 10).tolist() == [0, 1, 2, 3, 4]
    drawn = clicks.sample(1_000, 100)
    assert len(set(drawn.tolist())) == 100 and (np.diff(drawn) > 0).all()
    assert (drawn == clicks.sample(1_000, 100)).all()


# sequences ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def histories():
    draw = np.random.default_rng(0)
    users = np.repeat(np.arange(60), 8)
    items = np.concatenate([draw.permutation(30)[:8] for _ in range(60)])
    frame = {"user": users, "item": items, "time": np.arange(480)}
    return data.from_frame(frame, "sequences", name="events")


def test_sequences_beside_popularity(histories):
    given = {"budget": 8_000, "rates": [0.01], "epochs": 1, "length": 4}
    record = records.Record("201_tin", 1, "cpu")
    found = tryout.run("tin", histories, record, seeds=[0, 1, 2], **given)
    popular = {r["gauc"] for r in found.scores.rows if r["model"] == "popularity"}
    assert len(popular) == 1 and 0 <= popular.pop() <= 1
    assert found.scores.floor == [0.5, "popularity"] and len(found.claims) == 4
    mean = {r["gauc"] for r in found.scores.rows if (r["model"], r["seed"]) == ("TIN", 0)}
    assert mean == {found.scores.units["TIN", 0].mean()}


def test_wins_by_a_loop_over_users(histories):
    scores = torch.randn(len(histories.test), generator=torch.Generator().manual_seed(0)).round()
    users, labels = histories.test.users.tolist(), histories.test.labels[:, 0].tolist()
    slow = []
    for user in sorted(set(users)):
        own = {y: s for u, y, s in zip(users, labels, scores.tolist(), strict=True) if u == user}
        slow.append(0.5 if own[1] == own[0] else float(own[1] > own[0]))
    assert sequences.wins(scores, histories.test).tolist() == slow
    with pytest.raises(ValueError, match="one next item and one other for each user"):
        sequences.wins(scores[1:], histories.test.rows(slice(1, None)))


def test_recent_is_what_loading_with_that_length_gives(histories):
    short = sequences.recent(histories, 3)
    assert short.schema.length == 3 and int(short.test.lengths.max()) == 3
    long, cut = (log.test.take(slice(None)).history for log in (histories, short))
    assert torch.equal(long[:, -3:], cut)
    assert sequences.recent(histories, 10_000).schema.length == histories.schema.length


def test_popularity_counts_positives_of_the_training_part(histories):
    train, test = (getattr(histories, part).take(slice(None)) for part in ("train", "test"))
    seen = [int(i) for i, y in zip(train.ids[:, 0], train.labels[:, 0], strict=True) if y > 0]
    slow = [seen.count(int(i)) for i in test.ids[:, 0]]
    assert sequences.popularity(histories).tolist() == slow


# preferences ----------------------------------------------------------------------------------------

ROWS = tuple((f"say {k}", f"yes {'very ' * (k % 3)}well", f"no {'very ' * (k % 2)}never") for k in range(80))  # fmt: skip


def test_preferences_with_the_tiny_model():
    given = {"model": "tiny", "pairs": 30, "tested": 20, "rates": [0.003], "epochs": 1}
    record = records.Record("601_otpo", 1, "cpu")
    texts = PreferenceTexts("words", ROWS)
    found = tryout.run("otpo", texts, record, seeds=[0, 1, 2], **given)
    names = {r["model"] for r in found.scores.rows}
    assert {"OTPO", "DPO", "the longer", "the shorter", "coin"} <= names
    assert found.scores.floor == ["the longer", "the shorter", "coin"]
    by = {r["model"]: r["accuracy"] for r in found.scores.rows if r["seed"] == 0}
    assert by["the longer"] + by["the shorter"] == pytest.approx(1) and by["coin"] == 0.5
    assert "30 pairs trained on" in found.sentences()[-2]


def test_preference_parts_share_no_prompt_and_keep_within_their_sizes():
    train, valid, test = preferences.parts(PreferenceTexts("w", ROWS), None, 12, 5, 8, 8)
    assert len(train) == 12 and len(valid) <= 6 and len(test) == 5
    prompts = [{p.prompt for p in part.pairs} for part in (train, valid, test)]
    assert not prompts[0] & prompts[1] and not prompts[2] & (prompts[0] | prompts[1])
    same = tuple((f"{k}", "a", "a") for k in range(99))
    with pytest.raises(ValueError, match="w has 0 pairs that differ, 20 are needed"):
        preferences.parts(PreferenceTexts("w", same), None, 12, 5, 8, 8)


# bandit ---------------------------------------------------------------------------------------------


def bandit_log(n=2_000):
    draw = np.random.default_rng(0)
    context, action = draw.normal(size=(n, 2)), draw.integers(3, size=n)
    reward = (draw.random(n) < np.where(action == (context[:, 0] > 0), 0.6, 0.2)).astype(float)
    even = np.full(n, 1 / 3)
    return BanditLog("rounds", context, action, reward, even, 3, np.zeros(n, int), np.zeros((3, 1)))


def test_a_bandit_log_by_blocks():
    log, lines = bandit_log(), []
    record = records.Record("502_sl_mgac", 1, "cpu")
    found = tryout.run("sl_mgac", log, record, tell=lines.append, blocks=20)
    by = {name: [r["value"] for r in found.scores.rows if r["model"] == name] for name in ("logging", "greedy")}  # fmt: skip
    assert len(by["logging"]) == 20 and np.mean(by["greedy"]) > 1.3 > np.mean(by["logging"])
    assert any(line.startswith("greedy, DR: ") for line in lines)
    with pytest.raises(ValueError, match="400 blocks need 2000 rounds, it has 1000"):
        tryout.run("sl_mgac", log, record, blocks=400)


def test_rounds_add_up_to_the_doubly_robust_value():
    log = bandit_log(600)
    worth = bandit.by_round(log, seed=3)
    rows = bandit.evaluate(log, seed=3, draws=100)
    for row in (r for r in rows if r["estimator"] == "DR"):
        assert worth[row["policy"]].mean() == pytest.approx(row["value"], abs=1e-9)


# the command ----------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    for name in ("101_ssr.ipynb", "101_ssr.toml"):
        shutil.copy(ROOT / "notebooks" / name, tmp_path / "notebooks")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAPERLAB_LOCAL", str(tmp_path / "local"))
    monkeypatch.setattr("paperlab.plots.browser", lambda: None)
    return tmp_path


def test_a_run_of_the_command_leaves_a_record(project):
    draw = np.random.default_rng(0)
    lines = ["user,item,click"]
    lines += [f"u{draw.integers(40)},i{draw.integers(9)},{draw.integers(2)}" for _ in range(1_200)]
    (project / "own.csv").write_text("\n".join(lines))
    shelf.add([project / "own.csv"], "clicks", label="click", user="user")
    given = {"rates": "0.01", "epochs": "1"}
    tried, folder = trying.run("ssr", "own", project, "0..2", given, (), 1, print)
    kept = json.loads((folder / "record.json").read_text())
    assert (kept["status"], kept["profile"], kept["notebook"]) == ("ok", "try", "101_ssr")
    assert kept["parameters"]["data"] == "own" and kept["parameters"]["rates"] == [0.01]
    assert kept["figures"] and (folder / kept["figures"][0]).is_file()
    assert [v["outcome"] for v in kept["verdicts"]] == [j.outcome for j in tried.judged]
    assert tried.scores.clusters is not None  # resampled by user
    assert kept["own_sets"] == {"own": shelf.sets()["own"].notes["sha256"]}


def test_a_budget_that_no_width_meets_is_named(project):
    draw = np.random.default_rng(0)
    frame = {name: draw.integers(0, 2 + k, 1_200) for k, name in enumerate(("click", "a", "b"))}
    pl.DataFrame(frame).write_csv(project / "own.csv")
    shelf.add([project / "own.csv"], "clicks", label="click")
    said = "budget: no width in .* gives 3 dense weights within 5 %: .*; --set budget=WEIGHTS takes"
    with pytest.raises(ValueError, match=said):
        trying.run("ssr", "own", project, "0", {"budget": "3"}, (), 1, print)
    [path] = (project / "data/runs").glob("*/record.json")
    message = json.loads(path.read_text())["error"]["message"]
    assert message.startswith("ValueError: budget: no width")


def test_ctrl_c_ends_all_fits_and_not_only_the_one_that_runs(project, monkeypatch):
    draw, begun, fit = np.random.default_rng(0), [], trials.fit
    frame = {name: draw.integers(0, 2 + k, 1_200) for k, name in enumerate(("click", "a", "b"))}
    pl.DataFrame(frame).write_csv(project / "own.csv")
    shelf.add([project / "own.csv"], "clicks", label="click")

    class Interrupt(Callback):
        def on_train_batch_start(self, *_):
            os.kill(os.getpid(), signal.SIGINT)

    def interrupted(model, data, **options):
        begun.append(model)
        return fit(model, data, callbacks=[Interrupt()], **options)

    monkeypatch.setattr(trials, "fit", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trying.run("ssr", "own", project, "0", {}, (), 1, print)
    assert len(begun) == 1 and signal.getsignal(signal.SIGINT) is handler
    [path] = (project / "data/runs").glob("*/record.json")
    assert json.loads(path.read_text())["status"] == "failed"


def test_a_set_that_is_not_there_names_its_neighbours(project):
    said = "no data set 'frape'; near it: frappe; `paperlab data` lists all"
    with pytest.raises(ValueError, match=said):
        trying.run("ssr", "frape/x", project, "0", {}, (), 1, print)
    assert not (project / "data").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": "many"}, "budget=many: budget takes int, like 0"),
        ({"rates": "fast"}, "rates=.fast.: rates takes list.float., like"),
        ({"pace": "1"}, "setting must be one of budget"),
    ],
)
def test_settings_that_do_not_fit_leave_no_folder(project, settings, message):
    with pytest.raises(ValueError, match=message):
        trying.run("ssr", "frappe", project, "0", settings, (), 1, print)
    assert not (project / "data").exists()
