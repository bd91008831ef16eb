"""From a messy CSV to a verdict with two commands, for each kind of feedback and for requests."""

import json
import shutil
import sys

import numpy as np
import pytest
from paperlab import cli, manifest

ROOT = manifest.project_root()


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    for number in ("30[1-5]", "104", "106"):
        for path in (ROOT / "notebooks").glob(f"{number}_*"):
            shutil.copy(path, tmp_path / "notebooks")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAPERLAB_LOCAL", str(tmp_path / "local"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("paperlab.plots.browser", lambda: None)
    return tmp_path


@pytest.fixture
def paperlab(monkeypatch, capsys):
    """Call the command and give back what it printed; it must succeed."""

    def call(words: str) -> str:
        monkeypatch.setattr(
            sys, "argv", ["paperlab", *(w.replace("+", " ") for w in words.split())]
        )
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, error = capsys.readouterr()
        assert not left.value.code, error
        return out

    return call


def messy(path, names: str, rows: list[str]) -> None:
    """A byte-order mark, carriage returns, a quoted line end, a torn line."""
    first, _, *rest = rows[0].split(",")
    lines = [names, ",".join([first, '"to\r\npic"', *rest]), *rows[1:], "torn"]
    path.write_bytes(b"\xef\xbb\xbf" + "".join(f"{line}\r\n" for line in lines).encode())


def verdicts(project, paper: str = "") -> list[dict]:
    [path] = (project / "data/runs").glob(f"*{paper}*/record.json")
    kept = json.loads(path.read_text())
    assert (kept["status"], kept["profile"]) == ("ok", "try") and kept["own_sets"]
    return kept["verdicts"]


def test_seconds_watched(project, paperlab):
    draw = np.random.default_rng(0)
    rows = [
        f"u{draw.integers(40)},topic{draw.integers(4)},{draw.uniform(5, 90):.1f},{draw.exponential(20):.1f}"
        for _ in range(400)
    ]
    rows[5], rows[6] = "u1,topic1,nan,3", "u1,topic1,10,-3"
    messy(project / "watch.csv", "user,topic,seconds,watch", rows)
    words = "data add watch.csv --kind amounts --amount watch --length seconds --user user"
    assert "40" in paperlab(f"{words} --dry-run") and not (project / "local").exists()
    out = paperlab(words)
    assert "watch: amounts, " in out and "2 rows set aside" in out and "watch is below 0" in out
    assert "seconds: 1 values are missing" in out
    settings = "--set rates=0.003 --set epochs=1 --set batch_size=64"
    out = paperlab(f"try generative_regression --data watch --seeds 0..1 --only L1 {settings}")
    assert "on watch: GR against L1: " in out and "relative MAE" in out
    assert [v["text"] for v in verdicts(project)] == ["GR beats L1 on watch"]


def test_clicks_then_orders(project, paperlab):
    draw = np.random.default_rng(0)
    click = draw.random(800) < 0.5
    order = click & (draw.random(800) < 0.4)
    rows = [
        f"u{draw.integers(40)},topic{draw.integers(4)},{int(c)},{int(o)}"
        for c, o in zip(click, order, strict=True)
    ]
    rows[5], rows[6] = "u1,topic1,0,1", "u1,topic1,maybe,0"
    messy(project / "shop.csv", "user,topic,clicked,bought", rows)
    words = "data add shop.csv --kind funnel --labels clicked,bought --user user --split random"
    out = paperlab(words)
    assert "3 rows set aside" in out and "bought without clicked" in out
    settings = "--set rates=0.004 --set epochs=1 --set batch_size=128 --seeds 0..1"
    only = "--only click+score --only separate+towers"
    out = paperlab(f"try resflow --data shop {only} {settings}")
    assert "on shop: ResFlow against click score: " in out
    assert [v["text"] for v in verdicts(project)] == [
        f"ResFlow beats {rival} on shop" for rival in ("separate towers", "click score")
    ]


def test_orders_that_come_late(project, paperlab):
    draw = np.random.default_rng(0)
    rows, now = [], 1_700_000_000
    for _ in range(900):
        click = now - draw.integers(0, 9 * 86_400)
        bought = int(click + draw.exponential(86_400))
        came = draw.random() < 0.5 and bought <= now
        rows.append(
            f"u{draw.integers(40)},topic{draw.integers(4)},{click},{bought if came else ''}"
        )
    rows[5], rows[6] = f"u1,topic1,{now - 9},{now - 99}", f"u1,topic1,never,{now}"
    messy(project / "shop.csv", "user,topic,clicked,bought", rows)
    words = f"data add shop.csv --kind delays --click clicked --conversion bought --user user --end {now} --days 3"
    out = paperlab(words)
    assert "less than 3 days before the end" in out and "1 bought before clicked" in out
    settings = "--set rates=0.012 --set epochs=1 --set batch_size=128 --seeds 0..1"
    out = paperlab(f"try esdf --data shop --only ESMM --only oracle {settings}")
    assert "on shop: ESDF against ESMM: " in out
    assert "of the conversions that came within 3 days" in out and "oracle " in out
    assert [v["text"] for v in verdicts(project)] == ["ESDF beats ESMM on shop"]


def test_clicks_of_nine_days(project, paperlab):
    draw, rows = np.random.default_rng(0), []
    for _ in range(900):
        item, moment = draw.integers(20), 1_700_000_000 + draw.integers(9 * 86_400)
        rows.append(
            f"u{draw.integers(40)},topic{item % 4},{item},{moment},{int(draw.random() < 0.2 + 0.5 * (item % 2))}"
        )
    rows[5], rows[6] = "u1,topic1,1,never,1", f"u1,topic1,1,{1_700_000_000},maybe"
    messy(project / "days.csv", "user,topic,item,at,click", rows)
    out = paperlab("data add days.csv --kind daily --time at --days 2")
    assert "days: daily, " in out and "1 at is no time" in out and "1 click is not 0 or 1" in out
    settings = "--set rates=0.01 --set alphas=0.1 --set epochs=1 --set batch_size=128"
    out = paperlab(f"try elbo_tds --data days --seeds 0..1 --only linear {settings}")
    assert "on days: ELBO against linear: " in out and "user-AUC" in out
    assert [v["text"] for v in verdicts(project)] == ["ELBO beats linear on days"]


def test_purchases_in_the_order_of_time(project, paperlab):
    draw = np.random.default_rng(0)
    rows = [f"u{draw.integers(40)},{int(30 * draw.random() ** 2)},{k}" for k in range(700)]
    rows[5], rows[6] = "u1,,9", "u1,3,later"
    messy(project / "shop.csv", "buyer,sku,at", rows)
    words = "data add shop.csv --kind stream --user buyer --item sku --time at"
    assert "700" in paperlab(f"{words} --dry-run") and not (project / "local").exists()
    out = paperlab(words)
    assert "shop: stream, 698 rows" in out and "1 sku is empty" in out and "1 at is no time" in out
    settings = "--set periods=12 --set judged=3 --set trials=1 --set rates=0.01 --set passes=1"
    out = paperlab(f"try asmg --data shop --seeds 0..1 --only EMA --only popularity {settings}")
    assert "on shop: ASMG against popularity: " in out and "one drawn negative" in out
    assert [v["text"] for v in verdicts(project)] == [
        f"ASMG beats {rival} on shop" for rival in ("EMA", "popularity")
    ]


def test_requests_with_their_candidates(project, paperlab):
    draw, rows = np.random.default_rng(0), []
    for k in range(260):
        user, size = draw.integers(8), 1 if k < 20 else draw.choice([4, 4, 4, 4, 4, 4, 7])
        for item in draw.choice(25, size, replace=False):
            click = int(draw.random() < 0.2 + 0.5 * (item % 2))
            rows.append(f"r{k},s{item % 3},{user},{item},{1_700_000_000 + k // 2},{click}")
    rows[5:5] = ["r3,s1,77,9,1700000000,1", f"{rows[-1]}", "r8,s1,,9,1700000000,1"]
    messy(project / "shop.csv", "page,shelf,user,item,at,click", rows)
    words = "data add shop.csv --kind requests --request page --time at --label click"
    out = paperlab(words)
    assert "shop: requests, " in out and "split by time" in out and "5 rows set aside" in out
    assert "2 page of several users" in out and "1 user is empty" in out
    settings = "--set rates=0.008 --set epochs=1 --set batch_size=32 --set length=6 --seeds 0..1"
    out = paperlab(f"try sort --data shop --only scratch {settings}")
    assert "on shop: SORT against scratch: " in out and "groups of 4: " in out
    assert [v["text"] for v in verdicts(project, "sort")] == ["SORT beats scratch on shop"]
    out = paperlab(f"try onepiece --data shop --only invisible {settings}")
    assert "within groups: OnePiece against invisible: " in out and "item's past share" in out
    assert [v["text"] for v in verdicts(project, "onepiece")] == [
        "OnePiece beats invisible on shop"
    ]
