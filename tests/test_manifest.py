"""Manifests: read as typed values, refused in one line that names file and key."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from helpers.manifests import FIELDS, manifest_text, write_manifest
from helpers.project import project
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab import manifest, plots, runs
from paperlab.data import catalogue
from paperlab.parameters import BadInput, inspect

ROOT = manifest.project_root(Path(__file__))
EVERY = manifest.every(ROOT)


def test_a_manifest_is_read_as_typed_values(tmp_path):
    more = '[colours]\n"A b" = "#0a0b0c"\n[profiles.full]\nn = 9\n[measured.quick]\nseconds = 2.5\n'
    path = write_manifest(tmp_path / "101_small.ipynb", more)
    found = manifest.read(path)
    assert (found.number, found.slug) == ("101", "small")
    assert found.heading == "101 · Small: does it work?"
    assert found.arxiv == ["2401.00001"]
    assert found.colours == {"A b": "#0a0b0c"}
    assert found.profiles == {"full": {"n": 9}}
    assert found.measured == {"quick": {"seconds": 2.5}}


@pytest.mark.parametrize(
    ("more", "changes", "message"),
    [
        ("", {"titel": '"x"'}, "titel: unknown key"),
        ("", {"claim": None}, "claim: missing"),
        ("", {"name": "3"}, "name: must be str"),
        ("", {"data": '"frappe"'}, "data: must be list[str]"),
        ("", {"data": "[1]"}, "data: must be list[str]"),
        ("", {"name": '"a | b"'}, "name: must be one line"),
        ("", {"claim": '"two\\nlines"'}, "claim: must be one line"),
        ("", {"claim": '""'}, "claim: must be one line"),
        ("", {"status": '"done"'}, "status: must be one of reproduction, partial"),
        ("", {"family": '"cooking"'}, "family: must be one of start, ctr"),
        ("", {"arxiv": '["arXiv 1"]'}, "arxiv: an id is like"),
        ("", {"colours": "3"}, "colours: must be dict[str, str]"),
        ('[colours]\nDNN = "red"\n', {}, "colours.DNN: must be like #1f77b4"),
        ("[profiles]\nfull = 3\n", {}, "profiles: must be dict"),
        ("[profiles.quick]\nn = 3\n", {}, "profiles.quick: the notebook's own values"),
        ('[measured.full]\nseconds = "3"\n', {}, "measured: must be dict"),
        ("[measured.full]\nseconds = 0\n", {}, "measured.full: must be seconds"),
        ("[measured.full]\nseconds = inf\n", {}, "measured.full: must be seconds"),
        ("[measured.full]\nhours = 2\n", {}, "measured.full: must be seconds"),
        ("[colours\n", {}, "not TOML"),
    ],
)
def test_a_fault_is_one_line_that_names_file_and_key(tmp_path, more, changes, message):
    path = write_manifest(tmp_path / "101_small.ipynb", more, **changes)
    with pytest.raises(BadInput, match=re.escape(f"101_small.toml: {message}")) as error:
        manifest.read(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", FIELDS)
def test_every_key_must_be_there_unless_there_is_no_paper(tmp_path, key):
    path = write_manifest(tmp_path / "101_small.ipynb", **{key: None})
    with pytest.raises(BadInput, match=f"101_small.toml: {key}: missing"):
        manifest.read(path)
    if key in manifest.OF_A_PAPER:
        changes = dict.fromkeys(manifest.OF_A_PAPER) | {"status": '"no paper"'}
        assert manifest.read(write_manifest(path, **changes)).title == ""


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.text(st.characters(codec="ascii"), max_size=30), st.sampled_from([*FIELDS, "colours"]))
def test_any_toml_is_read_or_refused_in_one_line(tmp_path_factory, text, key):
    path = tmp_path_factory.mktemp("any") / "101_small.toml"
    path.write_text(manifest_text(**{key: text}))
    try:
        assert manifest.read(path).stem == "101_small"
    except BadInput as error:
        assert str(error).startswith("101_small.toml: ") and "\n" not in str(error)


def second(folder: Path, stem: str, more: str = "", **changes: str | None) -> None:
    """Another notebook and manifest in a little project."""
    path = folder / f"notebooks/{stem}.ipynb"
    path.write_text((folder / "notebooks/101_small.ipynb").read_text())
    write_manifest(path, more, **changes)


BLACK, WHITE = ('[colours]\nA = "#000000"\n', '[colours]\nA = "#ffffff"\n')


@pytest.mark.parametrize(
    ("stem", "more", "changes", "message"),
    [
        ("101_other", "", {}, "101_small.toml: number: 101_other.toml has 101 too"),
        ("102_small", "", {}, "102_small.toml: slug: 101_small.toml has small too"),
        ("102_b", "[profiles.full]\nm = 3\n", {}, "102_b.toml: profiles.full: b has no parameter"),
        ("102_b", "[profiles.full]\nn = 0\n", {}, "102_b.toml: profiles.full: n=0: n takes int in"),
        ("102_b", WHITE, {}, "102_b.toml: colours.A: #ffffff, but #000000 in 101_small.toml"),
        ("102_b", WHITE, {"family": '"rl"'}, "102_b.toml: colours.A: #ffffff, but #000000"),
        ("102_b", '[colours]\nB = "#000000"\n', {}, "102_b.toml: colours.B: #000000 is the colour of A"),
    ],
)  # fmt: skip
def test_manifests_are_held_against_each_other(tmp_path, stem, more, changes, message):
    write_manifest(project(tmp_path), BLACK)
    assert len(manifest.every(tmp_path)) == 1
    second(tmp_path, stem, more, **changes)
    manifest.colours.cache_clear()
    with pytest.raises(BadInput, match=re.escape(message)) as error:
        manifest.every(tmp_path)
    assert "\n" not in str(error.value)


def test_families_may_share_a_colour_and_papers_a_method(tmp_path):
    write_manifest(project(tmp_path), BLACK)
    second(tmp_path, "102_b", BLACK)
    second(tmp_path, "501_c", '[colours]\nC = "#000000"\n', family='"rl"')
    assert [m.stem for m in manifest.every(tmp_path)] == ["101_small", "102_b", "501_c"]
    assert manifest.colours(tmp_path) == {"A": "#000000", "C": "#000000"}


def test_a_notebook_without_a_manifest_and_the_reverse_are_named(tmp_path):
    path = project(tmp_path)
    path.with_suffix(".toml").unlink()
    with pytest.raises(BadInput, match=r"101_small\.toml is missing"):
        manifest.every(tmp_path)
    write_manifest(path)
    write_manifest(tmp_path / "notebooks/102_lost.ipynb")
    with pytest.raises(BadInput, match=r"102_lost\.toml: there is no 102_lost\.ipynb"):
        manifest.every(tmp_path)


@pytest.mark.parametrize("found", EVERY, ids=lambda m: m.stem)
def test_a_committed_manifest_names_what_there_is(found):
    known = inspect(ROOT / f"notebooks/{found.stem}.ipynb")
    for profile in found.profiles:
        assert runs.settle(ROOT / f"notebooks/{found.stem}.ipynb", profile).keys() == known.keys()
    assert {name.split("/")[0] for name in found.data} <= catalogue.entries().keys()
    if found.status != "no paper":
        assert importlib.util.find_spec(f"paperlab.{found.module}")
        assert found.module.split(".")[0] == found.family
    assert found.measured.keys() <= {"quick", *found.profiles}
    paths = (ROOT / "data/reference").glob(f"{found.stem}_*.json")
    judged = [
        p for p in paths if "tables" in json.loads(p.read_text())
    ]  # others are of earlier profiles
    assert found.profiles.keys() >= {p.stem.removeprefix(f"{found.stem}_") for p in judged}


def test_a_method_has_the_colour_of_its_manifest_and_any_other_name_one_of_its_own():
    assert plots.colour("DNN") == manifest.colours(ROOT)["DNN"] == "#222222"
    assert plots.colour("nobody's method") == plots.colour("nobody's method")
    assert plots.colour("nobody's method") not in manifest.colours(ROOT).values()


def test_the_families_are_listed_once():
    """import-linter's layers name them too: they must be the same."""
    folders = [family.folder for family in manifest.FAMILIES.values()]
    layers = (ROOT / ".importlinter").read_text()
    (line,) = [text for text in layers.splitlines() if folders[0] in re.findall(r"\w+", text)]
    assert set(re.findall(r"\w+", line)) == {*folders, "templates"}
    texts = {p: p.read_text() for folder in ("lib", "tests") for p in (ROOT / folder).rglob("*.py")}
    lists = [
        p.name for p, text in texts.items() if all(f'"{name}"' in text for name in folders[:4])
    ]
    assert lists == ["manifest.py"], "name families by manifest.FAMILIES"
