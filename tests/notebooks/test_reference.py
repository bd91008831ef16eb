"""Committed records: whole, and what their notebooks show of them is what the ledger says."""

import json
import re
from pathlib import Path

import pytest
from helpers.many import notebook, recorded
from paperlab import ledger, plots, records, verdict

ROOT = records.project_root(Path(__file__))
RECORDS = sorted((ROOT / "data/reference").glob("[0-9]*.json"))
SHOWN = ("full", "gpu")  # profiles that the ledger reads
each_record = pytest.mark.parametrize("path", RECORDS, ids=lambda p: p.stem)


def shown_outcomes(book: dict) -> list[tuple[str, str]]:
    """Claims with outcomes, as text of the tables that `records.show_claims` left in a notebook."""
    lines = [
        line
        for cell in book["cells"]
        if "records.show_claims(" in "".join(cell["source"])
        for output in cell.get("outputs", [])
        for line in "".join(output.get("data", {}).get("text/markdown", "")).splitlines()
    ]
    rows = [re.fullmatch(r"\| (.*?) \| .* \| \*\*([a-z ]+)\*\*.* \|", line) for line in lines]
    return [(row[1], row[2]) for row in rows if row]


def ledger_outcomes(root: Path, record: dict) -> list[tuple[str, str]]:
    """The same from the ledger, which leaves out what the notebook has withdrawn."""
    table = ledger.claims(root, [record]).filter(
        ledger.claims(root, [record])["claim"].is_not_null()
    )
    texts = [plots.markdown([{"claim": text}]).splitlines()[2][2:-2] for text in table["claim"]]
    return list(zip(texts, table["outcome"], strict=True))


@each_record
def test_a_kept_record_is_whole(path):
    record = json.loads(path.read_text())
    assert record["status"] == "ok"
    assert record["code"]["dirty"] is False
    seeds = len(record["parameters"]["seeds"])
    assert seeds >= 5 or (seeds >= 3 and record["seconds"] >= 300 * seeds)  # minutes a seed
    assert record["machine"]
    assert record["verdicts"]
    for table, roles in record.get("tables", {}).items():
        again = records.Record(record["notebook"], 1, "cpu")
        ways = list(roles["metrics"].values())
        columns = {k: roles[k] for k in ("group", "where", "pair")}
        again.table(
            table, record["metrics"][table], metric=list(roles["metrics"]), better=ways, **columns
        )
        assert again.tables[table] == {k: roles[k] for k in again.tables[table]}


@each_record
def test_stored_outcomes_are_those_of_todays_engine(path):
    record = json.loads(path.read_text())
    if "comparisons" in record["verdicts"][0]:
        judged = verdict.rejudge(record, path.parent)
        assert [j.outcome for j in judged] == [kept["outcome"] for kept in record["verdicts"]]
        verdict.refuse_trivial([j.claim for j in judged])


@each_record
def test_a_notebook_shows_the_outcomes_of_the_ledger(path):
    """The claims of a full record all stand in its notebook; those of other profiles may."""
    record = json.loads(path.read_text())
    if record["profile"] not in SHOWN or "comparisons" not in record["verdicts"][0]:
        return
    name, wanted = record["notebook"], ledger_outcomes(ROOT, record)
    assert len(wanted) == len(record["verdicts"]), (
        "take the claims that are withdrawn out of the record"
    )
    others = [json.loads(p.read_text()) for p in RECORDS if p.stem.startswith(name) and p != path]
    known = {line for other in others for line in ledger_outcomes(ROOT, other)}
    shown = set(shown_outcomes(json.loads((ROOT / f"notebooks/{name}.ipynb").read_text())))
    assert shown <= {*wanted, *known}
    if record["profile"] == "full":
        assert set(wanted) <= shown, "show the full record's claims with records.show_claims"


def test_another_outcome_than_the_ledgers_is_seen(tmp_path, monkeypatch):
    texts = {"B beats A | in *one* world": 0.05, "B beats A in another": 0.0}
    record = recorded("101_x", texts)
    notebook(tmp_path, "101_x", f"texts = {list(texts)!r}")
    outputs = []
    show = lambda rows: outputs.append({"data": {"text/markdown": plots.markdown(rows)}})  # noqa: E731
    monkeypatch.setattr(plots, "table", show)
    records.show_claims(record, tmp_path)
    book = {"cells": [{"source": "records.show_claims(full)", "outputs": outputs}]}
    assert shown_outcomes(book) == ledger_outcomes(tmp_path, record)
    assert shown_outcomes(book)[0][1] == "supported"
    other = json.loads(json.dumps(book).replace("**supported**", "**contradicted**"))
    assert shown_outcomes(other) != ledger_outcomes(tmp_path, record)
    elsewhere = json.loads(json.dumps(book).replace("records.show_claims", "verdict.show"))
    assert shown_outcomes(elsewhere) == []
