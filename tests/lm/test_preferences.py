"""Pairs: collation, splits, files of text with their faults, the real sets where present."""

import gzip
import json
import os
import warnings

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from paperlab.data import Batches, catalogue
from paperlab.lm.preferences import (
    BYTES,
    Pair,
    PairTruth,
    Preferences,
    collate,
    from_jsonl,
    from_text,
    load,
    mismatched,
)

PAIRS = [Pair((1, 2, 3), (4, 5), (6,)), Pair((7, 8), (9,), (10, 11))]


def some(count=40, prompts=7):
    rows = [(f"q{k % prompts}", f"good {k}", f"bad {k}") for k in range(count)]
    return from_text("some", rows)


# Batches -------------------------------------------------------------------------------------------


def test_collation_of_the_sheet():
    batch = collate(PAIRS, pad=0)
    assert batch.ids.tolist() == [
        [1, 2, 3, 4, 5],
        [7, 8, 9, 0, 0],
        [1, 2, 3, 6, 0],
        [7, 8, 10, 11, 0],
    ]
    masks = ["".join(map(str, row)) for row in batch.mask.int().tolist()]
    assert masks == ["00011", "00100", "00010", "00110"]
    assert batch.attention.sum(1).tolist() == [5, 3, 4, 4]
    assert batch.index.tolist() == [0, 1]


tokens = st.lists(st.integers(0, 30), min_size=1, max_size=9).map(tuple)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.builds(Pair, tokens, tokens, tokens), min_size=1, max_size=5), st.integers(0, 6))
def test_padding_on_either_side_holds_the_same_tokens(pairs, more):
    right = collate(pairs, pad=31)
    left = collate(pairs, pad=31, side="left", length=right.ids.shape[1] + more)
    rows = [(p.prompt, p.chosen) for p in pairs] + [(p.prompt, p.rejected) for p in pairs]
    for batch in (right, left):
        assert not (batch.mask & ~batch.attention).any()
        assert (batch.ids[~batch.attention] == 31).all()
        for k, (prompt, response) in enumerate(rows):
            assert tuple(batch.ids[k][batch.attention[k]].tolist()) == prompt + response
            assert tuple(batch.ids[k][batch.mask[k]].tolist()) == response
    assert right.attention[:, 0].all() and left.attention[:, -1].all()


def test_a_row_longer_than_the_length_is_an_error():
    with pytest.raises(ValueError, match="length must be at least 5, the longest row, got 4"):
        collate(PAIRS, pad=0, length=4)
    with pytest.raises(ValueError, match="side must be one of right, left, not 'both'"):
        collate(PAIRS, pad=0, side="both")


def test_batches_give_every_pair_once_in_a_new_seeded_order_each_pass():
    data = some(25)
    batches = Batches(data, 8, seed=3)
    passes = [[i for batch in batches for i in batch.index.tolist()] for _ in range(2)]
    assert passes[0] != passes[1]
    for order in passes:
        assert sorted(order) == list(range(25))
    again = [i for batch in Batches(data, 8, seed=3) for i in batch.index.tolist()]
    assert again == passes[0]
    first = next(iter(Batches(data, 8)))
    assert first.ids.shape[0] == 16
    same = data.take(first.index)
    assert torch.equal(same.ids, first.ids) and torch.equal(same.mask, first.mask)


def test_an_empty_prompt_is_end_of_text_on_either_side_and_in_any_amount_of_padding():
    data = from_text("some", [("", "yes", "no"), ("a longer prompt", "yes", "no")])
    for side in ("right", "left"):
        batch = data.take([0, 1], side)
        assert batch.ids[0][batch.attention[0]].tolist() == [data.eos, *b"yes", data.eos]
        assert batch.ids[0][batch.mask[0]].tolist() == [*b"yes", data.eos]
        # every scored token has a token before it
        first = batch.mask.int().argmax(1)
        assert (batch.attention.int().argmax(1) < first).all()
    assert data.truncated(10, 1).take([0]).mask.sum(1).tolist() == [1, 1]
    assert data.pairs[0].prompt == ()  # the pair itself is as it was


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: Preferences("p", (Pair((1,), (9,), (2,)),), 3).take([0]),
            ValueError,
            r"0\.\.4, got",
        ),
        (lambda: Preferences("p", (Pair((-1,), (1,), (2,)),), 3).take([0]), ValueError, "got -1"),
        (
            lambda: Preferences("p", (Pair((1,), (1.5,), (2,)),), 3).take([0]),
            ValueError,
            "integers",
        ),
        (lambda: some(3).take([3]), IndexError, r"some has pairs 0\.\.2, not 3"),
        (lambda: some(3).take([-1]), IndexError, r"some has pairs 0\.\.2, not -1"),
        (lambda: some(3).take([]), ValueError, "a batch needs at least one pair"),
        (
            lambda: from_text("p", [("\ud800", "a", "b")]),
            ValueError,
            "p: a text is not valid Unicode",
        ),
    ],
)
def test_what_is_no_batch_is_refused_in_one_line(make, error, message):
    with pytest.raises(error, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_mismatched_responses_come_from_the_next_pair():
    assert mismatched(PAIRS) == [Pair((1, 2, 3), (9,), (10, 11)), Pair((7, 8), (4, 5), (6,))]


# Parts and labels ----------------------------------------------------------------------------------


def test_all_pairs_of_a_prompt_fall_into_one_part_and_stay_there():
    data = some(600, prompts=200)
    parts = data.split(seed=1)
    assert sum(map(len, parts)) == 600
    prompts = [{p.prompt for p in part.pairs} for part in parts]
    assert not (prompts[0] & prompts[1] | prompts[0] & prompts[2] | prompts[1] & prompts[2])
    assert [len(p) / 200 for p in prompts] == pytest.approx([0.8, 0.1, 0.1], abs=0.08)
    fewer = data.subset(range(0, 600, 2)).split(seed=1)
    for part, whole in zip(fewer, prompts, strict=True):
        assert {p.prompt for p in part.pairs} <= whole
    assert [len(p) for p in data.split(seed=2)] != [len(p) for p in parts]
    assert [len(p) for p in data.split(shares=(1.0,))] == [600]
    assert [len(p) for p in data.split(shares=(0.0, 1.0))] == [0, 600]
    with pytest.raises(
        ValueError, match=r"shares must be at least 0 and sum to 1, got \(0.5, 0.4\)"
    ):
        data.split(shares=(0.5, 0.4))


def test_flipping_turns_about_that_share_and_its_truth():
    marks = ((True, False), (False,))
    pairs = tuple(Pair((k,), (1, 2), (3,), PairTruth(0.7, marks)) for k in range(2000))
    data = Preferences("some", pairs, symbols=2000)
    turned = data.flipped(0.3, seed=5)
    share = sum(p.chosen == (3,) for p in turned.pairs) / 2000
    assert share == pytest.approx(0.3, abs=0.04)
    assert turned.pairs != data.flipped(0.3, seed=6).pairs
    for p in turned.pairs[:50]:
        flipped = p.chosen == (3,)
        assert p.truth == PairTruth(-0.7 if flipped else 0.7, marks[::-1] if flipped else marks)
    assert data.flipped(0.0).pairs == data.pairs
    assert data.flipped(1.0).flipped(1.0).pairs == data.pairs
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\], got 1.2"):
        data.flipped(1.2)


def test_truncation_keeps_ends_of_prompts_and_starts_of_responses():
    marks = ((True, False, True), (False, True))
    pairs = (Pair((1, 2, 3), (4, 5, 6), (4, 7), PairTruth(1.0, marks)), Pair((1,), (4,), (4, 5)))
    cut = Preferences("some", pairs, symbols=9).truncated(prompt=2, response=2)
    assert cut.pairs == (
        Pair((2, 3), (4, 5), (4, 7), PairTruth(1.0, ((True, False), (False, True)))),
        Pair((1,), (4,), (4, 5)),
    )
    assert len(Preferences("some", pairs, symbols=9).truncated(2, 1)) == 0  # nothing to prefer
    with pytest.raises(ValueError, match="prompt must be at least 1, got 0"):
        cut.truncated(0, 5)


# Text ----------------------------------------------------------------------------------------------


def test_bytes_and_how_they_are_written():
    data = from_text("some", [("q\n", "é", "no")])
    assert data.pairs[0] == Pair((113, 10), (0xC3, 0xA9, BYTES), (110, 111, BYTES))
    assert (data.eos, data.pad, data.vocabulary) == (256, 257, 258)
    assert data.strings((113, 10, 0xC3, 256, 257)) == ["q", "⏎", "·c3", "<eos>", "<pad>"]


GOOD = {"prompt": "q", "chosen": "yes", "rejected": "no"}
BAD = {
    "{": "not JSON",
    '"text"': "not an object",
    json.dumps({"prompt": "q", "chosen": 3}): "chosen, rejected missing or not text",
    json.dumps(GOOD | {"chosen": " "}): "a response is empty",
    json.dumps(GOOD | {"rejected": "yes"}): "the two responses are the same",
    "": "not JSON",
    "[" * 100_000: "nested too deeply",
    json.dumps(GOOD | {"prompt": None}): "prompt missing or not text",
    json.dumps(GOOD | {"rejected": "\ud800"}): "rejected not valid Unicode",
}


@pytest.mark.parametrize("packed", [False, True])
def test_each_bad_line_gives_a_warning_with_its_number(tmp_path, packed):
    lines = [json.dumps(GOOD)]
    for line in BAD:
        lines += [line, json.dumps(GOOD | {"prompt": f"q{len(lines)}"})]
    path = tmp_path / ("mine.jsonl.gz" if packed else "mine.jsonl")
    raw = "\n".join(lines).encode() + b"\n\xff\xfe\n"
    path.write_bytes(gzip.compress(raw) if packed else raw)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found = from_jsonl(path)
    wanted = [(2 * k + 2, reason) for k, reason in enumerate(BAD.values())]
    wanted.append((len(lines) + 1, "not JSON"))
    assert list(found.problems) == wanted
    assert [str(w.message) for w in warned] == [f"{path.name}, line {n}: {r}" for n, r in wanted]
    assert len(found) == len(BAD) + 1
    assert found.pairs[0].chosen == (*b"yes", BYTES)
    assert found.pairs[1].prompt == tuple(b"q1")


def test_a_file_without_a_pair_or_no_file(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("{}\n")
    with pytest.raises(ValueError, match="mine.jsonl has no pair: 1 lines, none of them good"):
        from_jsonl(path)
    path.write_text("")
    with pytest.raises(ValueError, match="mine.jsonl has no pair: 0 lines"):
        from_jsonl(path)
    with pytest.raises(FileNotFoundError, match="nowhere.jsonl"):
        from_jsonl(tmp_path / "nowhere.jsonl")


# Known sets ----------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A data folder of the test's own, and no network."""
    monkeypatch.setenv("PAPERLAB_DATA", str(tmp_path))
    monkeypatch.setattr("paperlab.data.fetch.data_root", lambda: tmp_path / "none")
    monkeypatch.setattr("pooch.HTTPDownloader", _no_network)
    return tmp_path


def _no_network(**_):
    def download(*_):
        raise ConnectionError

    return download


def dialogue(question, answer, start="\n\nHuman: hello\n\nAssistant: hi"):
    return f"{start}\n\nHuman: {question}\n\nAssistant: {answer}"


def test_official_dialogues_are_cut_before_their_last_answer(elsewhere):
    folder = elsewhere / "hh-rlhf-helpful"
    folder.mkdir()
    rows = [
        {"chosen": dialogue("a?", "yes"), "rejected": dialogue("a?", "no")},
        {"chosen": dialogue("a?", "yes"), "rejected": dialogue("b?", "no")},
        {"chosen": "yes", "rejected": "no"},
        {"chosen": dialogue("a?", ""), "rejected": dialogue("a?", "no")},
    ]
    text = "\n".join(map(json.dumps, rows))
    (folder / "train.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    found = load("hh-rlhf-helpful")
    assert found.name == "hh-rlhf-helpful-train" and len(found) == 1
    start = dialogue("a?", "")[:-1]
    assert found.pairs[0] == Pair(tuple(start.encode()), (*b" yes", BYTES), (*b" no", BYTES))
    apart = "the two dialogues differ before their last answer"
    assert found.problems == ((2, apart), (3, apart), (4, "a response is empty"))


def test_ultrafeedback_takes_the_last_message_of_each_side(elsewhere):
    folder = elsewhere / "ultrafeedback"
    folder.mkdir()

    def talk(answer):
        return [{"role": "user", "content": "a?"}, {"role": "assistant", "content": answer}]

    frame = pl.DataFrame({"prompt": ["a?"], "chosen": [talk("yes")], "rejected": [talk("no")]})
    frame.write_parquet(folder / "test_prefs-00000-of-00001.parquet")
    found = load("ultrafeedback", part="test")
    prompt = b"\n\nHuman: a?\n\nAssistant:"
    assert found.pairs == (Pair(tuple(prompt), (*b" yes", BYTES), (*b" no", BYTES)),)


def test_without_copy_or_network_the_error_says_where(elsewhere):
    for name, file in (
        ("ultrafeedback", "train_prefs-00000-of-00001.parquet"),
        ("hh-rlhf-harmless", "train.jsonl.gz"),
        ("hh-rlhf-harmless-test", "test.jsonl.gz"),
        ("alpaca-eval-preferences", "prompts.parquet"),
    ):
        with pytest.raises(FileNotFoundError, match=rf"{file}.* put it in data/{name}/"):
            load(name)


def test_unknown_names_and_options():
    with pytest.raises(ValueError, match="name must be one of hh-rlhf-harmless-test, .*not 'hh'"):
        load("hh")
    with pytest.raises(
        ValueError, match="name must be one of hh-rlhf-harmless-test, .*not 'gsm8k'"
    ):
        load("gsm8k")  # of another kind
    with pytest.raises(
        ValueError, match="alpaca-eval-preferences takes seed, per_prompt, least, not"
    ):
        load("alpaca-eval-preferences", gap=0.1)
    with pytest.raises(ValueError, match="part must be one of train, test, not 'valid'"):
        load("ultrafeedback", part="valid")
    with pytest.raises(ValueError, match="per_prompt must be at least 1"):
        load("alpaca-eval-preferences", per_prompt=0)


def test_addresses_of_preferences_are_pinned_to_a_commit():
    for entry in catalogue.entries().values():
        for file in entry.files if entry.kind == "preferences" else ():
            assert "/resolve/main/" not in file.url and len(file.url.split("/resolve/")[1]) > 40


@pytest.fixture
def real(monkeypatch):
    if not os.environ.get("PAPERLAB_DATA"):
        pytest.skip("PAPERLAB_DATA is not set: no real data on this machine")
    monkeypatch.setattr("pooch.HTTPDownloader", _no_network)

    def open_it(name, **options):
        try:
            return load(name, **options)
        except FileNotFoundError as error:
            pytest.skip(str(error))

    return open_it


def test_harmless_test_part(real):
    """2,312 pairs; the copy's notes count 2,307 with the same last prompt, four have no answer."""
    data = real("hh-rlhf-harmless-test")
    assert len(data) == 2303
    assert sum("differ" in why for _, why in data.problems) == 5
    assert sum("empty" in why for _, why in data.problems) == 4
    for pair in data.pairs:
        text = bytes(pair.prompt).decode()
        assert text.startswith("\n\nHuman:") and text.endswith("\n\nAssistant:")


def test_alpaca_pairs_are_apart_disjoint_and_seeded(real):
    data = real("alpaca-eval-preferences", per_prompt=2, least=0.5)
    assert 400 < len(data) <= 2 * 805
    seen = [(p.prompt, r) for p in data.pairs for r in (p.chosen, p.rejected)]
    assert len(seen) - len(set(seen)) < 5  # two models may give the same answer
    by_prompt = {}
    for p in data.pairs:
        by_prompt[p.prompt] = by_prompt.get(p.prompt, 0) + 1
    assert max(by_prompt.values()) == 2
    assert real("alpaca-eval-preferences", per_prompt=2, least=0.5).pairs == data.pairs
    assert real("alpaca-eval-preferences", seed=1, per_prompt=2, least=0.5).pairs != data.pairs
    folder = next(p for p in os.environ["PAPERLAB_DATA"].split(os.pathsep))
    answers = pl.read_parquet(f"{folder}/alpaca-eval-preferences/responses.parquet")
    rate = {}
    for output, p in answers.select("output", "p_beats_reference").iter_rows():
        rate.setdefault(output, []).append(p)
    for pair in data.pairs[:100]:
        won, lost = (bytes(r[:-1]).decode()[1:] for r in (pair.chosen, pair.rejected))
        assert max(rate[won]) - min(rate[lost]) >= 0.5
