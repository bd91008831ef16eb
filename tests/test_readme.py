"""The README keeps its promises: its commands and samples run, its numbers are those of the records.

Fenced blocks without a language, or with `sh`, hold commands only; output stands in `text` blocks.
All run in the README's order in one copy of the project, with two exceptions: `make` needs a bare
clone, so its targets are only looked up; `run`, `sweep` and `check` take long, so their names and
values are checked and no kernel starts. A CSV that the README does not make itself is made here, by
`click_log`, with the columns that its `data add` names.
"""

import csv
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.project import paperlab
from paperlab import manifest, runs, sweep
from paperlab.commands import pairs

ROOT = manifest.project_root(Path(__file__))
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
WITHOUT_KERNEL = ("run", "sweep", "check")


def commands(text: str) -> list[list[str]]:
    """The commands of a block, as words, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    found = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [words for words in found if words]


def steps() -> list[tuple[str, str | list[str]]]:
    """What the README has a reader do: ("python", source) or ("sh", words), in its order."""
    found: list[tuple[str, str | list[str]]] = []
    for language, text in BLOCKS:
        if language == "python":
            found.append(("python", text))
        elif language in ("", "sh", "bash", "console"):
            found += [("sh", words) for words in commands(text)]
    return found


def options(words: list[str]) -> dict[str, list[str]]:
    """The values after each option of a command; the words before the first stand under ""."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            found.setdefault(name, []).extend([value] * bool(equals))
        else:
            found[name].append(word)
    return found


def click_log(path: Path, user: str, time: str, label: str, rows: int = 4_000) -> None:
    """A click log as a shop would export it: users, items with a taste for their price, an hour.

    A click is more likely for a user's own category and at a low price; 1,2,...,rows are seconds.
    """
    draw = random.Random(0)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow([user, "item_id", "category", "price", "hour", time, label])
        for second in range(rows):
            person, item = draw.randrange(200), draw.randrange(60)
            price = 5 + item % 7
            odds = 0.15 + 0.5 * (person % 5 == item % 5) - 0.01 * price
            clicked = int(draw.random() < odds)
            line = [
                f"u{person}",
                f"i{item}",
                f"c{item % 5}",
                price,
                second // 3600,
                second,
                clicked,
            ]
            out.writerow(line)


@pytest.fixture
def clone(tmp_path) -> Path:
    """What a clone has that commands need; the library is the one under test."""
    for name in ("notebooks", "figures"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("pyproject.toml", "README.md", "Makefile"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "data").mkdir()
    for name in ("catalogue.toml", "README.md", "reference"):
        (tmp_path / "data" / name).symlink_to(ROOT / "data" / name)
    return tmp_path


def check_values(root: Path, words: list[str]) -> None:
    """The name, the profile and the values of a run, a sweep or a check fit the notebook."""
    given = options(words)
    assert given.keys() <= {"", "--set", "--grid", "--profile", "--keep", "--workers", "--seeds"}
    _, name = given[""]
    notebook, (profile,) = runs.find(name, root), given.get("--profile", ["quick"])
    fixed = pairs(given.get("--set"))
    axes = [pair for item in given.get("--grid", []) for pair in pairs([item], "--grid").items()]
    assert sweep.plan(notebook, profile, fixed, axes)


def test_every_command_and_every_sample_runs(clone):
    for kind, step in steps():
        if kind == "python":
            words = [sys.executable, "-c", step]
            environment = os.environ | {"MPLBACKEND": "agg"}
            done = subprocess.run(words, cwd=clone, env=environment, capture_output=True, text=True)
        elif step[0] == "make":
            targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert set(step[1:]) <= set(targets), step
            continue
        else:
            assert Path(step[0]).name == "paperlab", (
                f"{step}: a block of commands holds commands only"
            )
            if step[1] in WITHOUT_KERNEL:
                check_values(clone, step[1:])
                continue
            if step[1:3] == ["data", "add"]:
                given = options(step[3:])
                path = clone / given[""][0]
                names = {"user": "user_id", "time": "ts", "label": "click"}
                names = {key: given.get(f"--{key}", [name])[0] for key, name in names.items()}
                if not path.exists():
                    click_log(path, **names)
            short = ["--set", "epochs=2"] if step[1] == "try" else []  # else minutes
            done = paperlab(clone, *step[1:], *short)
        assert done.returncode == 0, f"{step}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_the_readme_is_short_and_its_files_are_there():
    text = re.sub(r"<!--.*?-->", "", README)
    assert len(text.split()) <= 900
    assert [language for language, _ in BLOCKS if language not in ("", "sh", "bash", "console", "text", "python")] == []  # fmt: skip
    for page in (README, (ROOT / "CONTRIBUTING.md").read_text()):  # fmt: skip
        for link in re.findall(r"\]\(([^):]+)\)", page):
            assert (ROOT / link).exists(), link


def test_a_wrong_command_would_be_found(clone):
    """The checks above fail where they should."""
    for words in (["run", "ssr", "--set", "epoch=2"], ["sweep", "ssr", "--grid", "noise=x"]):
        with pytest.raises(ValueError, match="ssr has no parameter 'epoch'|noise takes"):
            check_values(clone, words)
    with pytest.raises(AssertionError):
        check_values(clone, ["run", "ssr", "--sed", "x=1"])
    assert commands("$ a b  # c\n\nd \\\n  --e 'f g'\n") == [["a", "b"], ["d", "--e", "f g"]]
    assert options(["x.csv", "--kind", "clicks", "--set", "a=1", "--set=b=2"]) == {
        "": ["x.csv"], "--kind": ["clicks"], "--set": ["a=1", "b=2"],
    }  # fmt: skip


def test_the_made_up_log_can_be_learned(tmp_path):
    path = tmp_path / "clicks.csv"
    click_log(path, "user_id", "ts", "click")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    own = [int(r["click"]) for r in rows if int(r["user_id"][1:]) % 5 == int(r["item_id"][1:]) % 5]
    rest = sum(int(r["click"]) for r in rows) - sum(own)
    assert sum(own) / len(own) > 3 * rest / (len(rows) - len(own)) > 0
    assert json.dumps(list(rows[0])) == '["user_id", "item_id", "category", "price", "hour", "ts", "click"]'  # fmt: skip
