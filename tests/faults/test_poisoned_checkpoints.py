"""Checkpoints that would run code, or are cut: refused in one line, and the code is not run."""

import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.clicks import LOG, Net
from lightning.pytorch.callbacks import Callback
from paperlab import data, loop, records
from paperlab.data import store

ROOT = records.project_root(Path(__file__))


class Poison:
    """Unpickled, it makes a file in the current folder."""

    def __reduce__(self):
        return os.mkdir, ("poisoned",)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not Path("poisoned").exists(), "code of a checkpoint was run"


def fit(checkpoint: str, every: int = 3, **options):
    torch.manual_seed(0)
    options |= {"precision": "32-true", "accelerator": "cpu", "checkpoint_every": every}
    return loop.fit(Net(LOG.schema), LOG, batch_size=1024, checkpoint=checkpoint, **options)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> bytes:
    """The checkpoint of a training that stopped after three of five steps."""

    class Stop(Callback):
        def on_train_batch_start(self, trainer, model, batch, batch_idx):
            if batch_idx == 3:
                raise KeyboardInterrupt

    path = tmp_path_factory.mktemp("good") / "a.ckpt"
    fit(path, callbacks=[Stop()])
    return path.read_bytes()


def with_poison(whole: bytes, place: str) -> bytes:
    Path("whole.ckpt").write_bytes(whole)
    found = torch.load("whole.ckpt", weights_only=True)
    torch.save(found | {place: Poison()}, "whole.ckpt")
    return Path("whole.ckpt").read_bytes()


BAD = [
    pytest.param(lambda whole: with_poison(whole, "callbacks"), id="poison where a part belongs"),
    pytest.param(lambda whole: with_poison(whole, "more"), id="poison in a part more"),
    pytest.param(lambda whole: pickle.dumps(Poison()), id="a bare pickle"),
    pytest.param(lambda whole: pickle.dumps({"state_dict": Poison()}, 2), id="an older pickle"),
    pytest.param(lambda whole: whole[: len(whole) // 2], id="cut"),
    pytest.param(lambda whole: whole[:-1], id="the last byte is missing"),
    pytest.param(lambda whole: b"", id="empty"),
    pytest.param(lambda whole: b"<html>Not found</html>", id="a page"),
]


def test_what_the_damage_is_done_to_is_good(good):
    Path("a.ckpt").write_bytes(good)
    run = fit("a.ckpt")
    assert run.steps == 5 and len(run.history) == 1


@pytest.mark.parametrize("damage", BAD)
def test_training_does_not_go_on_from(good, damage):
    bad = damage(good)
    Path("a.ckpt").write_bytes(bad)
    with pytest.raises(
        ValueError, match=r"^a\.ckpt is not a checkpoint to resume from: delete"
    ) as raised:
        fit("a.ckpt")
    assert "\n" not in str(raised.value)
    assert Path("a.ckpt").read_bytes() == bad


def test_a_training_whose_last_step_was_saved_is_done_and_stays_done():
    """Five steps, saved at the fifth; the second call trains no step and has the same weights."""
    first, second = fit("b.ckpt", every=5), fit("b.ckpt", every=5)
    assert (first.steps, second.steps) == (5, 5)
    assert first.test == second.test


@pytest.fixture
def policy(here):
    """A tiny checkpoint as the hub has them, with its weights as safetensors."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models

    raw = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1}, unk_token="<unk>"))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>")
    sizes = {"vocab_size": 2, "n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 8}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))
    model.save_pretrained("policy")
    fast.save_pretrained("policy")
    return model


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def pickled(content: object) -> None:
    Path("policy/model.safetensors").unlink()
    torch.save(content, "policy/pytorch_model.bin")


def needs_code(file: str, auto: str, **more: str) -> None:
    """The file names a class of the checkpoint's own module, which makes a folder when imported."""
    path = Path("policy", file)
    changed = json.loads(path.read_text()) | {"auto_map": {auto: "own.Own"}} | more
    path.write_text(json.dumps(changed))
    Path("policy/own.py").write_text("import os\nos.mkdir('poisoned')\nclass Own: pass\n")


HOSTILE = [
    pytest.param(lambda m: cut(Path("policy/model.safetensors")), id="cut"),
    pytest.param(lambda m: pickled(m.state_dict() | {"more": Poison()}), id="poison"),
    pytest.param(lambda m: pickled(Poison()), id="poison alone"),
    pytest.param(lambda m: (pickled(m.state_dict()), cut(Path("policy/pytorch_model.bin"))), id="cut pickle"),
    pytest.param(lambda m: needs_code("config.json", "AutoConfig", model_type="own"), id="a model of its own"),
]  # fmt: skip


@pytest.fixture
def load(policy, monkeypatch):
    """hub.load_checkpoint, where a question to the user fails the test."""
    from paperlab.lm import hub

    def asked(*_):
        raise AssertionError("the user was asked whether to run the checkpoint's code")

    monkeypatch.setattr("builtins.input", asked)
    return hub.load_checkpoint


@pytest.mark.parametrize("harm", HOSTILE)
def test_a_policy_is_weights_alone(policy, load, harm):
    load("policy")
    harm(policy)
    with pytest.raises(ValueError, match="^policy cannot be read as weights alone: ") as raised:
        load("policy")
    assert "\n" not in str(raised.value)


def test_a_tokenizer_s_own_code_is_not_run(load):
    """Its words are in tokenizer.json: they are read, and the class it names is passed over."""
    needs_code("tokenizer_config.json", "AutoTokenizer", tokenizer_class="Own")
    assert load("policy").tokenizer.eos_token_id == 1


@pytest.mark.parametrize("name", ["train.ids.npy", "test.values.npy"])
def test_a_column_store_with_objects_in_it_is_refused(here, name):
    store.save(LOG, here / "log")
    assert len(data.open_store(here / "log").train)
    np.save(here / "log" / name, np.array([[Poison()]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects") as raised:
        data.open_store(here / "log")
    assert "\n" not in str(raised.value)


def test_nothing_in_library_or_notebooks_opens_the_way_for_code():
    """Names and options by which files could bring code along; torch loads weights only by itself."""
    ways = r"weights_only=False|allow_pickle=True|trust_remote_code=True|^\s*import pickle|joblib\.load"
    ways += r"|yaml\.load\(|(?<![.\w])eval\(|(?<![.\w])exec\(|torch\.hub|cloudpickle"
    sources = {p: p.read_text() for p in (ROOT / "lib/paperlab").rglob("*.py")}
    for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        sources[path] = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    found = {p.name: re.findall(ways, text, re.MULTILINE) for p, text in sources.items()}
    found = {name: [w for w in words if w] for name, words in found.items()}
    assert {name: words for name, words in found.items() if words} == {}
