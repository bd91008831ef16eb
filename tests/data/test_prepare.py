"""Streaming preparation: the same bytes whatever the chunks and after a kill; nothing lost."""

import gzip
import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from helpers.click_files import COLUMNS, RECIPE, made, text
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.data import prepare, recipe, sources


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_ids_labels_buckets_and_split(tmp_path):
    (tmp_path / "x.tsv").write_text(text(3000))
    log = made(tmp_path / "x.tsv", tmp_path / "store")
    assert [f.name for f in log.schema.fields] == ["n", "a", "b"]
    sizes = [len(s) for s in (log.train, log.valid, log.test)]
    assert sum(sizes) == 3000
    assert sizes[0] == pytest.approx(2400, abs=80)
    # slow second version of the training part's first column, by the protocol's own words
    rows = [line.split("\t") for line in text(3000).splitlines()]
    part = recipe.by_line(np.arange(3000), 0)

    def bucket(word):
        if word == "":
            return "missing"
        return word if int(word) <= 2 else f"b{int(np.log(int(word)) ** 2)}"

    words = [bucket(r[1]) for r, p in zip(rows, part, strict=True) if p == 0]
    counts = {w: words.count(w) for w in set(words)}
    order = sorted((w for w in counts if counts[w] >= 2), key=lambda w: (-counts[w], w))
    expected = [order.index(w) + 1 if w in order else 0 for w in words]
    assert log.train.ids[:, 0].tolist() == expected
    labels = [float(r[0]) for r, p in zip(rows, part, strict=True) if p == 0]
    assert log.train.labels[:, 0].tolist() == labels


def test_unseen_and_rare_values_are_out_of_vocabulary(tmp_path):
    train = np.flatnonzero(recipe.by_line(np.arange(400), 0) == 0)
    held = np.flatnonzero(recipe.by_line(np.arange(400), 0) != 0)
    lines = ["1\t1\tcommon\tcommon"] * 400
    lines[train[0]] = "1\t1\trare\tcommon"
    lines[held[0]] = "1\t1\tnew\tcommon"
    (tmp_path / "x.tsv").write_text("\n".join(lines))
    log = made(tmp_path / "x.tsv", tmp_path / "store")
    assert log.schema.fields[1].size == 2
    assert (log.train.ids[:, 1] == 0).sum() == 1
    assert (log.valid.ids[:, 1] == 0).sum() + (log.test.ids[:, 1] == 0).sum() == 1


@settings(deadline=None, max_examples=12)
@given(st.integers(60, 4000))
def test_the_bytes_do_not_depend_on_the_chunks(tmp_path_factory, size):
    folder = tmp_path_factory.mktemp("x")
    (folder / "x.tsv").write_text(text(300))
    made(folder / "x.tsv", folder / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "CHUNK_BYTES", size)
        made(folder / "x.tsv", folder / "parts")
    assert contents(folder / "whole") == contents(folder / "parts")


def test_gzip_is_the_same_as_plain(tmp_path):
    (tmp_path / "x.tsv").write_text(text(500))
    (tmp_path / "x.tsv.gz").write_bytes(gzip.compress(text(500).encode()))
    made(tmp_path / "x.tsv", tmp_path / "plain")
    made(tmp_path / "x.tsv.gz", tmp_path / "zip")
    assert contents(tmp_path / "plain") == contents(tmp_path / "zip")


def test_malformed_rows_are_counted_and_put_aside(tmp_path):
    good = text(200).splitlines()
    bad = {
        10: "1\t2\ta",
        50: "2\t1\ta1\tb1",
        90: "1\tmany\ta1\tb1",
        120: "0\t1.5\ta1\tb1",
        150: "1\t1\ta\tb\tc",
    }
    for k, line in bad.items():
        good[k] = line
    raw = "\n".join(good).encode() + b"\n1\t1\t\xff\xfe\tb1\n"
    (tmp_path / "x.tsv").write_bytes(raw)
    with pytest.warns(UserWarning, match="6 malformed rows"):
        log = made(tmp_path / "x.tsv", tmp_path / "store")
    assert sum(len(s) for s in (log.train, log.valid, log.test)) == 195
    assert log.notes["rejected"] == 6
    aside = [
        line.split("\t")[:2] for line in (tmp_path / "store/rejected.tsv").read_text().splitlines()
    ]
    assert sorted(int(n) for n, _ in aside) == [11, 51, 91, 121, 151, 201]
    reasons = {int(n): r for n, r in aside}
    assert reasons[11] == "3 columns, not 4"
    assert reasons[51] == "label is not 0 or 1"
    assert reasons[91] == reasons[121] == "n is not a whole number"
    assert reasons[201] == "not UTF-8"


def test_a_file_without_one_good_row_is_an_error(tmp_path):
    (tmp_path / "x.tsv").write_text("nothing here\n" * 5)
    with pytest.raises(ValueError, match="no row could be read"):
        made(tmp_path / "x.tsv", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_frames_prepare_like_text(tmp_path):
    (tmp_path / "x.tsv").write_text(text(400))
    made(tmp_path / "x.tsv", tmp_path / "text")
    frame = pl.read_csv(
        tmp_path / "x.tsv", separator="\t", has_header=False, new_columns=list(COLUMNS)
    )
    prepare.prepare(sources.FrameSource(frame), RECIPE, tmp_path / "frame", {"title": "x"})
    assert contents(tmp_path / "text") == contents(tmp_path / "frame")


@pytest.mark.parametrize("when", [1, 2, 3, 5])
def test_a_stop_between_two_files_counts_no_row_twice(tmp_path, monkeypatch, when):
    """The state is the last thing written: what stood before it must not be added again."""
    (tmp_path / "x.tsv").write_text(text(2000))
    made(tmp_path / "x.tsv", tmp_path / "whole")
    monkeypatch.setattr(sources, "CHUNK_BYTES", 500)
    calls, write = [], prepare._write_state

    def stop(work, state):
        calls.append(state)
        if len(calls) == when:
            raise KeyboardInterrupt
        write(work, state)

    monkeypatch.setattr(prepare, "_write_state", stop)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "x.tsv", tmp_path / "cut")
    made(tmp_path / "x.tsv", tmp_path / "cut")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


SLOW = """
    import sys, time
    from pathlib import Path
    sys.path.insert(0, {here!r})
    from helpers.click_files import made
    from paperlab.data import prepare, recipe, sources
    sources.CHUNK_BYTES = 2000
    keep = prepare._write_state
    def slow(work, state):
        keep(work, state)
        print("written", flush=True)
        time.sleep(0.05)  # time for the kill
    prepare._write_state = slow
    made(Path({source!r}), Path({folder!r}))
"""


@pytest.mark.parametrize("share", [0.1, 0.8])
def test_a_killed_preparation_resumes_to_the_same_bytes(tmp_path, monkeypatch, share):
    (tmp_path / "x.tsv").write_text(text(6000))
    written, keep = [], prepare._write_state
    with monkeypatch.context() as patch:
        patch.setattr(sources, "CHUNK_BYTES", 2000)
        patch.setattr(prepare, "_write_state", lambda *a: written.append(keep(*a)))
        made(tmp_path / "x.tsv", tmp_path / "whole")
    code = textwrap.dedent(SLOW).format(
        here=str(Path(__file__).parents[1]),
        source=str(tmp_path / "x.tsv"),
        folder=str(tmp_path / "cut"),
    )
    victim = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for _ in range(int(share * len(written))):
        assert victim.stdout.readline() == "written\n"
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    victim.stdout.close()
    state = tmp_path / "cut.part/state.json"
    assert not (tmp_path / "cut").exists(), "killed too late to show anything"
    assert json.loads(state.read_text())["position"] >= 0
    made(tmp_path / "x.tsv", tmp_path / "cut")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
