"""Seconds of every notebook and test file: one table at the end, what exceeds its budget marked.

CPU seconds are those of the test's process and of its children that have ended, so that a busy
machine does not change them much. `python tests/helpers/seconds.py` fails where a file of the last
complete run took more than twice its budget.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from os import times
from pathlib import Path
from time import perf_counter  # by name: tests replace those of the modules

import pytest
from paperlab.manifest import FAMILIES

KEPT = Path(__file__).parents[2] / "test-artefacts/seconds.json"
BUDGETS = {"notebook": 25, "paper": 15, "house": 60, "browser": 120}  # CPU seconds a file
TABLE = 40  # lines that are printed; seconds.json has all
PAPERS, WORKERS = 90, 2


def kind(file: str) -> str:
    """notebook, paper (tests of a family's folder), browser, or house (all other tests)."""
    if file.startswith("notebooks/"):
        return "notebook"
    folder = Path(file).parts[1]
    if folder == "browser":
        return "browser"
    return "paper" if folder in {family.folder for family in FAMILIES.values()} else "house"


def cpu() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(times()[:4])


def is_paper(file: str) -> bool:
    """Whether a notebook is a paper's: neither the start page nor of the house's own."""
    return kind(file) == "notebook" and Path(file).name[0] not in "09"


class Seconds:
    """A pytest plugin: measures where tests run, adds up and prints where pytest was started."""

    def __init__(self) -> None:
        self.files = defaultdict(lambda: [0.0, 0.0])  # file -> CPU and wall seconds

    def pytest_collection_modifyitems(self, items: list) -> None:
        """The longest files first, as of the last complete run, so that both workers end together.

        A file that was not in that run counts as long as its kind's budget.
        """
        last = json.loads(KEPT.read_text()) if KEPT.is_file() else []
        wall = {row["file"]: row["wall"] for row in last}

        def seconds(item) -> float:
            file = item.nodeid.partition("::")[0]
            return wall[file] if file in wall else BUDGETS[kind(file)]

        items.sort(key=seconds, reverse=True)  # stable: the tests of a file stay in their order

    def pytest_collection_finish(self) -> None:
        self.before, self.began = cpu(), perf_counter()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self):
        outcome = yield
        now, clock = cpu(), perf_counter()
        outcome.get_result().seconds = [now - self.before, clock - self.began]
        self.before, self.began = now, clock

    def pytest_runtest_logreport(self, report) -> None:
        for k, seconds in enumerate(getattr(report, "seconds", ())):  # none where a worker died
            self.files[report.nodeid.partition("::")[0]][k] += seconds

    def pytest_terminal_summary(self, terminalreporter, config) -> None:
        some = config.args_source is pytest.Config.ArgsSource.ARGS  # files or folders were named
        if some or not any(is_paper(file) for file in self.files):
            return
        rows = [
            {"file": f, "kind": kind(f), "cpu": round(c, 1), "wall": round(w, 1)}
            for f, (c, w) in sorted(self.files.items(), key=lambda item: -item[1][0])
        ]
        KEPT.parent.mkdir(exist_ok=True)
        KEPT.write_text(json.dumps(rows, indent=1) + "\n")
        terminalreporter.section("seconds")
        terminalreporter.write_line("\n".join(report(rows)))


def report(rows: list[dict]) -> list[str]:
    """The table's lines, worst first; the sum of each kind; the projection to ninety papers."""
    lines = [f"{'CPU s':>7} {'wall s':>7}  budget  file"]
    for row in rows[:TABLE]:
        budget = BUDGETS[row["kind"]]
        mark = f"  {row['cpu'] / budget:.1f} x its budget" if row["cpu"] > budget else ""
        line = f"{row['cpu']:7.1f} {row['wall']:7.1f}  {budget:6}  {row['file']}{mark}"
        lines.append(line)
    if len(rows) > TABLE:
        rest = sum(row["cpu"] for row in rows[TABLE:])
        lines.append(f"{rest:7.1f} {'':7}  {'':6}  {len(rows) - TABLE} other files")
    sums = {name: [row["cpu"] for row in rows if row["kind"] == name] for name in BUDGETS}
    lines += [f"{sum(v):7.1f}  {name}: {len(v)} files" for name, v in sums.items()]
    papers = sum(is_paper(row["file"]) for row in rows)
    fixed = sum(sums["house"]) + sum(sums["browser"])
    today = (sum(sums["notebook"]) + sum(sums["paper"])) / papers
    budgeted = BUDGETS["notebook"] + BUDGETS["paper"]
    for each, what in ((today, "as today's"), (budgeted, "at their budgets")):
        minutes = (PAPERS * each + fixed) / WORKERS / 60
        lines.append(f"{PAPERS} papers {what}, {each:.0f} s each: {minutes:.0f} minutes")
    return lines


def excess(rows: list[dict]) -> list[str]:
    """What took more than twice its budget."""
    return [
        f"{row['file']}: {row['cpu']} CPU seconds, its budget is {BUDGETS[row['kind']]}"
        for row in rows
        if row["cpu"] > 2 * BUDGETS[row["kind"]]
    ]


if __name__ == "__main__":
    found = excess(json.loads(KEPT.read_text()))
    print("\n".join(found))
    sys.exit(bool(found))
