"""Sets that are no click logs: each kind on small files that the tests make, real copies, the command."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from paperlab import data
from paperlab.data import catalogue, fetch, kinds
from paperlab.data.sets.math_verifiable import boxed


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder of copies without pinned hashes: nothing of this machine's data is seen."""
    monkeypatch.setenv("PAPERLAB_DATA", str(tmp_path))
    monkeypatch.setattr(fetch, "data_root", lambda: tmp_path / "none")
    plain = {}
    for name, entry in catalogue.entries().items():
        local = tuple(catalogue.File(f.name, "unverified") for f in entry.local)
        plain[name] = replace(entry, local=local)
    monkeypatch.setattr(catalogue, "entries", lambda: plain)

    def put(name: str, file: str, columns: dict) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        pl.DataFrame(columns).write_parquet(tmp_path / name / file)

    return put


def test_bandit_log(shelf):
    log = {
        "row": [1, 0, 2],
        "timestamp": ["2019-11-24 00:00:01", "2019-11-24 00:00:00", "2019-11-24 00:00:02"],
        "item_id": [1, 0, 1],
        "position": [3, 1, 2],
        "click": [1, 0, 0],
        "propensity_score": [0.25, 0.5, 0.25],
        "user_feature_0": ["b", "a", "b"],
        "user-item_affinity_0": [0.0, 1.0, 2.0],
        "user-item_affinity_1": [3.0, 4.0, 5.0],
    }
    items = {
        "": [0, 1],
        "item_id": [1, 0],
        "item_feature_0": [0.5, -1.0],
        "item_feature_1": ["x", "y"],
    }
    shelf("open-bandit-small", "bts_women.parquet", log)
    shelf("open-bandit-small", "item_context_women.parquet", items)
    made = data.load("open-bandit-small", policy="bts", campaign="women")
    assert made.name == "open-bandit-small-bts-women"
    assert made.action.tolist() == [0, 1, 1]
    assert made.reward.tolist() == [0, 1, 0]
    assert made.propensity.tolist() == [0.5, 0.25, 0.25]
    assert made.position.tolist() == [0, 2, 1]
    assert made.context.tolist() == [[1, 0, 1, 4], [0, 1, 0, 3], [0, 1, 2, 5]]
    assert made.item_features.tolist() == [[-1, 0, 1], [0.5, 1, 0]]
    assert repr(made) == "BanditLog(open-bandit-small-bts-women: 3 rounds, 2 actions)"
    shelf("open-bandit-small", "bts_women.parquet", log | {"propensity_score": [0.25, 0.0, 1.0]})
    with pytest.raises(ValueError, match=r"propensity must be in \(0, 1\]"):
        data.load("open-bandit-small", policy="bts", campaign="women")


def test_relevance(shelf):
    shelf("esci-us-judgments-sample", "judgments.parquet",
          {"query": ["q", "q", "r"], "asin": ["a", "b", "a"], "esci": ["E", "I", "S"]})  # fmt: skip
    made = data.load("esci-us-judgments-sample")
    assert (made.query, made.document) == (("q", "q", "r"), ("a", "b", "a"))
    assert made.grade.tolist() == [3, 0, 2]
    shelf("home-depot-search", "train.parquet",
          {"search_term": ["q"], "product_title": ["bolt"], "relevance": [2.33]})  # fmt: skip
    assert data.load("home-depot-search").grade.tolist() == [2.33]


def test_problems(shelf):
    shelf("gsm8k", "test.parquet",
          {"question": ["a?", "b?", "c?"], "answer": ["so\n#### 1,234", "no mark", "####  "]})  # fmt: skip
    made = data.load("gsm8k", part="test")
    assert (made.prompt, made.answer) == (("a?",), ("1234",))
    assert made.set_aside == ((2, "no answer after ####"), (3, "no answer after ####"))
    assert repr(made) == "Problems(gsm8k-test: 1 problems, 2 rows set aside)"
    shelf("math-verifiable", "math_test5000.parquet",
          {"problem": ["a", "b"], "solution": [r"so $\boxed{\frac{1}{2}}$.", r"\boxed{open"]})  # fmt: skip
    made = data.load("math-verifiable", part="math_test5000")
    assert (made.answer, made.set_aside) == ((r"\frac{1}{2}",), ((2, "no answer"),))
    shelf("math-verifiable", "svamp.parquet",
          {"Question": ["How many?"], "Answer": [3.0], "Body": ["Ann has 3."]})  # fmt: skip
    made = data.load("math-verifiable", part="svamp")
    assert (made.prompt, made.answer) == (("Ann has 3. How many?",), ("3",))
    shelf("code-verifiable", "mbpp.parquet",
          {"text": ["Add."], "test_setup_code": ["x = 1"], "test_list": [["assert a()", "assert b()"]]})  # fmt: skip
    assert data.load("code-verifiable", part="mbpp").answer == ("x = 1\nassert a()\nassert b()",)


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"\boxed{1} and then \boxed{2}", "2"),
        (r"\boxed{a{b}{c}}", "a{b}{c}"),
        (r"\boxed{}", ""),
        (r"\boxed{{1}", ""),
        ("none", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_the_last_boxed_answer_has_balanced_braces(solution, answer):
    assert boxed(solution) == answer


def test_graphs(shelf):
    shelf("temporal-and-influence-graphs", "collegemsg.parquet",
          {"src": [7, 9, 7], "dst": [9, 4, 4], "timestamp": [10, 20, 30]})  # fmt: skip
    made = data.load("temporal-and-influence-graphs")
    assert made.edges.tolist() == [[1, 2], [2, 0], [1, 0]]
    assert (made.nodes, made.directed, made.times.tolist()) == (3, True, [10, 20, 30])
    shelf("temporal-and-influence-graphs", "jodie_wikipedia_edits.parquet",
          {"user": [1, 1, 3], "page": [1, 5, 1]})  # fmt: skip
    made = data.load("temporal-and-influence-graphs", part="jodie_wikipedia_edits")
    assert made.edges.tolist() == [[0, 2], [0, 3], [1, 2]]
    assert (made.nodes, made.left, made.times) == (4, 2, None)
    shelf("temporal-and-influence-graphs", "nethept.parquet", {"u": [0, 5], "v": [5, 9]})
    made = data.load("temporal-and-influence-graphs", part="nethept")
    assert (made.nodes, made.directed) == (3, False)


def test_a_table_without_rows_or_no_table_is_one_line(shelf, tmp_path):
    shelf("gsm8k", "train.parquet", {"question": [], "answer": []})
    with pytest.raises(ValueError, match="train.parquet is empty: it has no row"):
        data.load("gsm8k")
    (tmp_path / "gsm8k/train.parquet").write_bytes(b"<html>Not found</html>")
    with pytest.raises(fetch.Broken, match="train.parquet is broken: delete and fetch it again"):
        data.load("gsm8k")


EDGES = np.array([[0, 1], [1, 2]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: kinds.Graph("g", EDGES, 2, True), r"edges must lie in 0\.\.1"),
        (lambda: kinds.Graph("g", EDGES - 1, 3, True), r"edges must lie in 0\.\.2"),
        (lambda: kinds.Graph("g", EDGES + 0.5, 3, True), "edges must hold integers"),
        (lambda: kinds.Graph("g", EDGES, 3, True, np.arange(3)), "edges 2, times 3"),
        (lambda: kinds.Judgments("j", ("q",), ("d",), np.array([np.nan])), "grade must be finite"),
        (lambda: kinds.Judgments("j", ("q",), ("d", "e"), np.array([1.0])), "query 1, document 2"),
        (lambda: kinds.Problems("p", (), ()), "length of at least 1, got prompt 0, answer 0"),
    ],
)
def test_bad_columns_are_refused_when_a_table_is_made(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


REAL = {  # rows, as the copies' notes give them
    ("open-bandit-small", "random"): 10_000,
    ("home-depot-search", None): 74_067,
    ("esci-us-judgments-sample", None): 6_678,
    ("gsm8k", "train"): 7_473,
    ("gsm8k", "test"): 1_319,
    ("math-verifiable", "math_train_answers"): 7_470,  # two answers are empty, two missing
    ("math-verifiable", "math_test5000"): 5_000,
    ("math-verifiable", "dapo_math_17k"): 17_398,
    ("math-verifiable", "svamp"): 1_000,
    ("math-verifiable", "asdiv"): 2_215,
    ("math-verifiable", "mawps"): 2_065,
    ("math-verifiable", "aime24"): 30,
    ("math-verifiable", "minerva_math"): 272,
    ("code-verifiable", "humaneval"): 164,
    ("code-verifiable", "mbpp"): 974,
    ("code-verifiable", "code_contests_test"): 165,
    ("temporal-and-influence-graphs", "collegemsg"): 59_835,
    ("temporal-and-influence-graphs", "jodie_wikipedia_edits"): 157_474,
    ("temporal-and-influence-graphs", "nethept"): 58_891,
    ("temporal-and-influence-graphs", "netphy"): 231_507,
}
NODES = {
    "collegemsg": 1_899,
    "jodie_wikipedia_edits": 8_227 + 1_000,
    "nethept": 15_233,
    "netphy": 37_149,
}


@pytest.mark.parametrize(("name", "part"), REAL)
def test_real_copies_where_present(name, part):
    if not os.environ.get("PAPERLAB_DATA"):
        pytest.skip("PAPERLAB_DATA is not set: no real data on this machine")
    option = {"policy": part} if part == "random" else {"part": part} if part else {}
    try:
        made = data.load(name, **option)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert len(made) == REAL[name, part]
    if part in NODES:
        assert made.nodes == NODES[part]


def command(*words: str, **environment: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-c", "from paperlab.cli import main; main()", "data", *words]
    return subprocess.run(line, capture_output=True, text=True, env=os.environ | environment)


def test_the_command_prepares_what_it_lists(tmp_path):
    """Every listed set reaches its loader; here none has files, and that is what is said."""
    done = command(COLUMNS="400")
    assert done.returncode == 0
    for name, entry in catalogue.entries().items():
        assert name in done.stdout and entry.kind in done.stdout
    done = command("nope")
    assert done.returncode == 2
    assert done.stderr == "paperlab: no data set 'nope'; `paperlab data` lists all\n"
    done = command("gsm8k", "--set", "part=valid")
    assert (done.returncode, done.stderr) == (
        2, "paperlab: part must be one of train, test, not 'valid'\n"
    )  # fmt: skip
    done = command("open-bandit-small", PAPERLAB_DATA=str(tmp_path))
    assert done.returncode == 2
    assert (
        "open-bandit-small: " in done.stderr and "put it in data/open-bandit-small/" in done.stderr
    )
