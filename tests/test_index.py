"""Cards, README and start page follow from the manifests, and the committed ones do."""

import json
from pathlib import Path
from statistics import mean

import nbformat
import pytest
from helpers.manifests import write_manifest
from helpers.project import paperlab, project
from paperlab import digest, index, manifest
from paperlab.parameters import BadInput

ROOT = manifest.project_root(Path(__file__))
README = (ROOT / "README.md").read_text()


@pytest.fixture
def home(tmp_path) -> Path:
    """A project with a start page, a README and one notebook."""
    write_manifest(project(tmp_path))
    cells = [nbformat.v4.new_markdown_cell("", id=name) for name in ("papers", "findings")]
    start = nbformat.v4.new_notebook(cells=cells)
    nbformat.write(start, tmp_path / "notebooks/000_start_here.ipynb")
    found = "**One.** [one](notebooks/one.ipynb), [data](data/README.md)\n\n![a](b.png)\n\nTwo."
    found = f"<!-- findings -->\n{found}\n<!-- /findings -->"
    (tmp_path / "README.md").write_text(
        f"# P\n\n{found}\n<!-- papers -->\n<!-- /papers -->\nThe end.\n"
    )
    return tmp_path


def first_cell(path: Path) -> str:
    return "".join(json.loads(path.read_text())["cells"][0]["source"])


def test_what_is_committed_is_what_the_manifests_say():
    names = sorted(p.relative_to(ROOT).as_posix() for p in index.drifted(ROOT))
    assert not names, f"run paperlab index: {', '.join(names)}"


def test_a_card_holds_the_manifest(home):
    path = home / "notebooks/101_small.ipynb"
    more = "[profiles.full]\nn = 9\n[profiles.gpu]\nn = 99\n[measured.quick]\nseconds = 7\n"
    more += "[measured.full]\nseconds = 300\nmemory_mb = 1234\n"
    write_manifest(path, more, data='["frappe"]', note='"*Partial*: not all of it."')
    index.write(home)
    assert first_cell(path).splitlines() == [
        "# 101 · Small: does it work?",
        "",
        "| | |",
        "|---|---|",
        "| Paper | *A Small Paper* |",
        "| Authors | One, Two |",
        "| Venue | ICML 2024; arXiv 2401.00001 |",
        "| Claim | Small is enough |",
        "| Data | a planted log (quick); frappe (full) |",
        "| Run time | quick: 7 s; full: 5 min, 1.2 GB; gpu: not measured yet (two CPU cores) |",
        "| Status | partial |",
        "",
        "*Partial*: not all of it.",
    ]


def test_lists_hold_every_paper_but_drafts(home):
    index.write(home)
    assert (
        "| Click-through-rate models | [101 Small](notebooks/101_small.ipynb) |"
        in (home / "README.md").read_text()
    )
    assert "| [101 Small](101_small.ipynb) | does it work? | partial |" in first_cell(
        home / "notebooks/000_start_here.ipynb"
    )
    write_manifest(home / "notebooks/101_small.ipynb", status='"draft"')
    index.write(home)
    assert "101" not in (home / "README.md").read_text()
    assert "101" not in first_cell(home / "notebooks/000_start_here.ipynb")
    assert "| Status | draft |" in first_cell(home / "notebooks/101_small.ipynb")


def test_the_start_page_has_the_findings_of_the_readme(home):
    index.write(home)
    cell = json.loads((home / "notebooks/000_start_here.ipynb").read_text())["cells"][1]
    assert "".join(cell["source"]) == "**One.** [one](one.ipynb), [data](../data/README.md)\n\nTwo."


def test_writing_twice_changes_nothing_and_a_drift_is_one_line(home):
    assert len(index.write(home)) == 3
    assert index.write(home) == []
    assert paperlab(home, "index", "--check").returncode == 0
    readme = home / "README.md"
    readme.write_text(readme.read_text().replace("101 Small", "101 Large"))
    done = paperlab(home, "index", "--check")
    assert done.returncode == 1
    told = "paperlab: differs from the manifests, run paperlab index: README.md"
    assert done.stderr.strip() == told
    assert paperlab(home, "index").stdout.split() == ["README.md"]
    assert readme.read_text().endswith("<!-- /papers -->\nThe end.\n")


def test_another_card_does_not_age_a_notebook(home):
    path = home / "notebooks/101_small.ipynb"
    before = digest.notebook(path)
    write_manifest(path, claim='"Something else"')
    assert path in index.write(home)
    assert digest.notebook(path) == before


def test_pictures_are_those_that_the_readme_shows(home):
    path = home / "notebooks/101_small.ipynb"
    book = json.loads(path.read_text())
    output = {"output_type": "display_data", "metadata": {"paperlab": {"figure": "a_b"}}}
    output["data"] = {"image/png": "UE5H"}
    book["cells"][1] |= {"outputs": [output], "execution_count": 1}
    path.write_text(json.dumps(book))
    (home / "figures").mkdir()
    (home / "figures/old.png").write_bytes(b"old")
    readme = home / "README.md"
    readme.write_text(readme.read_text() + "![A](figures/101_small_a_b.png)\n")
    index.write(home)
    assert [p.name for p in (home / "figures").iterdir()] == ["101_small_a_b.png"]
    assert (home / "figures/101_small_a_b.png").read_bytes() == b"PNG"
    readme.write_text(readme.read_text().replace("a_b", "a_c"))
    with pytest.raises(
        BadInput, match=r"shows figures/101_small_a_c\.png, which no notebook draws"
    ):
        index.write(home)


@pytest.mark.parametrize(
    ("file", "old", "message"),
    [
        ("README.md", "papers", "the page holds no <!-- papers -->"),
        ("README.md", "findings", "the page holds no <!-- findings -->"),
        ("notebooks/000_start_here.ipynb", '"papers"', "no cell"),
        ("notebooks/000_start_here.ipynb", '"findings"', "no cell"),
    ],
)  # fmt: skip
def test_a_place_that_is_missing_is_named(home, file, old, message):
    path = home / file
    path.write_text(path.read_text().replace(old, old.replace("p", "b").replace("f", "b")))
    with pytest.raises(BadInput, match=message):
        index.write(home)


def means(stem: str, table: str, value: str, by: tuple[str, ...] = ("model",)) -> dict:
    """Mean over seeds in a table of a notebook's full record."""
    rows = json.loads((ROOT / f"data/reference/{stem}_full.json").read_text())["metrics"][table]
    groups: dict = {}
    for row in rows:
        groups.setdefault(tuple(row[k] for k in by), []).append(row[value])
    return {key if len(by) > 1 else key[0]: mean(values) for key, values in groups.items()}


def test_the_findings_of_the_readme_are_those_of_the_records():
    auc = means("110_ctr_leaderboard", "planted_orders", "auc")
    base = ("LR", "FM", "FwFM", "DNN", "DNN + LN, GELU")
    gaps = [v - auc["DNN"] for name, v in auc.items() if name not in base]
    assert (len(gaps), len(auc)) == (22, 27)
    near = sum(abs(gap) <= 0.01 for gap in gaps)
    assert f"of equal size, {near} end within .01 AUC" in README
    assert f"between {-min(gaps):.3f} below and {max(gaps):.3f} above".replace("0.", ".") in README
    slope = means("110_ctr_leaderboard", "planted_orders", "slope 3")
    carried = {name: value for name, value in slope.items() if name not in base}
    low, high = min(carried, key=carried.get), max(carried, key=carried.get)
    told = f"{low} carries {slope[low]:.0%}, {high} {slope[high]:.0%}".replace("%", " %")
    assert told in README
    rank = means("502_sl_mgac", "evaluation", "rank correlation")
    assert f"rank correlation {rank['released score']:.2f}".replace("0.", ".") in README
    assert f"session reach {rank['per-decision WIS']:.2f}".replace("0.", ".") in README
    regret = means("602_loss_lab", "regret", "regret", ("model", "beta", "flips", "labels"))
    told = {
        "sigmoid": "ends {:.2f} nats",
        "robust": "that share, {:.3f}.",
        "cdpo": "ends {:.2f} away",
    }
    for loss, words in told.items():
        assert words.format(regret[loss, 0.5, 0.2, 1000]).replace("0.", ".") in README, loss
    tuned = means("602_loss_lab", "tuned", "regret", ("model", "beta", "flips", "labels"))
    assert max(tuned[loss, 0.5, 0.2, 1000] for loss in told) < 0.01
