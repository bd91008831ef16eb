"""Checkpoints: a tiny random Llama made on the spot, saved, loaded by its folder, tuned."""

import math

import pytest
import torch
from paperlab import loop
from paperlab.align.tuning import PreferenceTuning
from paperlab.lm.preferences import Preferences, from_text

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: pip install 'paperlab[llm]'"
)
from paperlab.lm import hub  # noqa: E402

TEXTS = [
    ("Human: hi Assistant:", " hello there", " no"),
    ("Human: two and two? Assistant:", " four", " it may be five, it may be six"),
    ("Human: sing Assistant:", " la la", " I do not sing"),
] * 4


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def folder(request, tmp_path_factory):
    """A checkpoint of either kind with a word tokenizer, written as the hub has them."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = sorted({w for row in TEXTS for text in row for w in text.split()})
    words = {w: k for k, w in enumerate(["<unk>", "<eos>", "<pad>", *words])}
    raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", eos_token="<eos>", pad_token="<pad>"
    )
    torch.manual_seed(0)
    if request.param == "llama":
        config = transformers.LlamaConfig(
            vocab_size=len(words),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
        model = transformers.LlamaForCausalLM(config)
    else:
        config = transformers.GPT2Config(
            vocab_size=len(words),
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=64,
            bos_token_id=1,
            eos_token_id=1,
        )
        model = transformers.GPT2LMHeadModel(config)
    path = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_pairs_in_the_tokenizers_ids(folder):
    policy = hub.load_checkpoint(folder)
    data = hub.tokenise(from_text("talk", TEXTS), policy.tokenizer)
    assert len(data) == 12 and data.vocabulary == len(policy.tokenizer)
    pair = data.pairs[0]
    assert data.strings(pair.chosen) == ["hello", "there", "<eos>"]
    assert data.strings(pair.prompt) == ["Human:", "hi", "Assistant:"]
    assert pair.rejected[-1] == data.eos == policy.tokenizer.eos_token_id
    batch = data.take([0, 1])
    assert batch.ids.max() < data.vocabulary


def test_padding_on_the_left_changes_nothing(folder):
    policy = hub.load_checkpoint(folder)
    data = hub.tokenise(from_text("talk", TEXTS), policy.tokenizer)
    module = PreferenceTuning(policy, "otpo")
    for p in module.policy.parameters():  # away from the reference
        p.data += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    right, left = (module.compare(data.take(range(3), side=side))[0] for side in ("right", "left"))
    assert (right - math.log(2)).abs().max() > 1e-3
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lora", [True, False])
def test_a_checkpoint_is_tuned(folder, lora):
    policy = hub.load_checkpoint(folder, checkpointing=True)
    data = hub.tokenise(from_text("talk", TEXTS), policy.tokenizer)
    module = PreferenceTuning(
        hub.add_lora(policy, rank=2) if lora else policy, "otpo", beta=0.5, lr=0.02
    )
    options = {"precision": "32-true", "accelerator": "cpu", "checks_per_epoch": 2}
    done = loop.fit(module, module.refer(data), epochs=8, batch_size=6, **options)
    assert done.history[0]["train_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert done.history[-1]["train_unweighted/rewards/accuracies"] == 1
    before = module.rewards(data)["chosen"]
    if lora:
        with module.policy.disable_adapter():
            off = module.rewards(data)["chosen"]
        assert before.abs().max() > 1e-2 and off.abs().max() < 1e-4


def test_faults(folder):
    policy = hub.load_checkpoint(folder)
    with pytest.raises(ValueError, match="rank must be at least 1"):
        hub.add_lora(policy, rank=0)
    with pytest.raises(ValueError, match="pairs must be text"):
        hub.tokenise(Preferences("toy", (), 5), policy.tokenizer)
    policy.tokenizer.eos_token = None
    with pytest.raises(ValueError, match="end-of-text"):
        hub.tokenise(from_text("talk", TEXTS), policy.tokenizer)
