"""PreferenceTuning: sums by hand, what must not matter, references that agree, LoRA, checkpoints."""

import copy
import math

import pytest
import torch
from paperlab import loop
from paperlab.align import losses, otpo
from paperlab.align.formulas import GOLD, LOSSES
from paperlab.align.tuning import WEIGHTINGS, PreferenceTuning
from paperlab.lm.logprobs import token_logps
from paperlab.lm.preferences import Pair, PairBatch, Preferences
from paperlab.lm.tiny_lm import TinyLM
from paperlab.lm.training import SupervisedTuning

SYMBOLS = 9


def pairs(n=8, seed=0, longest=7) -> Preferences:
    draw = torch.Generator().manual_seed(seed)

    def word(low, high):
        size = torch.randint(low, high, (1,), generator=draw).item()
        return tuple(torch.randint(SYMBOLS, (size,), generator=draw).tolist())

    rows = tuple(
        Pair(word(1, 4), (*word(1, longest), SYMBOLS), (*word(1, longest), SYMBOLS))
        for _ in range(n)
    )
    return Preferences("random", rows, SYMBOLS)


def policy(seed=0, scale=0.3) -> TinyLM:
    torch.manual_seed(seed)
    lm = TinyLM(SYMBOLS + 2, dim=16, layers=2, heads=2)
    for p in lm.parameters():
        torch.nn.init.normal_(p, std=scale)
    return lm


def moved(weighting="dpo", kind="sigmoid", **options) -> PreferenceTuning:
    """A module whose policy is no longer its reference."""
    module = PreferenceTuning(policy(), weighting, kind, **options)
    module.policy.load_state_dict(policy(seed=1).state_dict())
    return module.double()


def tune(module, data, **options) -> loop.Fit:
    return loop.fit(module, data, **{"precision": "32-true", "accelerator": "cpu", **options})


def whole(data, **options) -> PairBatch:
    return data.take(range(len(data)), **options)


# one step ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_a_fresh_policy_is_its_reference(weighting):
    module = PreferenceTuning(policy(), weighting)
    loss, seen = module.compare(whole(pairs()))
    assert loss.tolist() == pytest.approx([math.log(2)] * 8)
    assert seen["rewards/margins"] == 0 and seen["rewards/accuracies"] == 0
    assert seen["unweighted/rewards/margins"] == 0
    assert module.reference.training is False
    assert not any(p.requires_grad for p in module.reference.parameters())


@pytest.mark.parametrize("weighting", ["dpo", "uniform", "ld", "otpo"])
def test_the_loss_pair_by_pair_without_batches_or_padding(weighting):
    data, module = pairs(), moved(weighting, beta=0.7, reg=0.05, ld_alpha=0.3)
    loss, seen = module.compare(whole(data))
    slow, plain = [], []
    for pair in data.pairs:
        logps, ratios, states = [], [], []
        for response in (pair.chosen, pair.rejected):
            ids = torch.tensor([[*pair.prompt, *response]])
            steps = range(len(pair.prompt) - 1, ids.shape[1] - 1)
            out, ref = module.policy(ids), module.reference(ids)
            of = [o.logits[0].log_softmax(1) for o in (out, ref)]
            both = [torch.stack([o[t, ids[0, t + 1]] for t in steps]) for o in of]
            logps.append(both[0])
            ratios.append(both[0] - both[1])
            states.append(torch.stack([out.hidden[0, t] for t in steps])[None])
        m, n = len(pair.chosen), len(pair.rejected)
        short = min(m, n)
        weights = [torch.ones(k, dtype=torch.float64) for k in (m, n)]
        if weighting == "uniform":
            weights = [w * short / len(w) for w in weights]
        elif weighting == "ld":
            for w in weights:
                w[short:] = 0.3
        elif weighting == "otpo":
            masks = [torch.ones(s.shape[:2], dtype=torch.bool) for s in states]
            found = otpo.token_weights(*states, *masks, reg=0.05)
            weights = [found.chosen[0], found.rejected[0]]
        delta = (weights[0] * ratios[0]).sum() - (weights[1] * ratios[1]).sum()
        slow.append(-torch.nn.functional.logsigmoid(0.7 * delta).item())
        plain.append(0.7 * (ratios[0].sum() - ratios[1].sum()).item())
    # Plans agree to the solver's tolerance.
    assert loss.tolist() == pytest.approx(slow, rel=1e-6)
    assert seen["unweighted/rewards/margins"].item() == pytest.approx(sum(plain) / 8, rel=1e-9)


def test_simpo_has_no_reference():
    module = PreferenceTuning(policy(), kind="simpo", beta=2.0, options={"gamma": 0.5})
    assert module.reference is None
    batch = whole(pairs())
    loss, _ = module.compare(batch)
    logps = token_logps(module.policy(batch.ids).logits, batch.ids, batch.mask)
    mean = losses.sequence_logratio(logps, None, batch.mask[:, 1:], average=True)
    expected = -torch.nn.functional.logsigmoid(2 * (mean[:8] - mean[8:]) - 0.5)
    torch.testing.assert_close(loss, expected)
    _, seen = module.compare(batch)
    torch.testing.assert_close(seen["rewards/margins"], 2 * (mean[:8] - mean[8:]).mean())
    found = module.rewards(pairs())
    torch.testing.assert_close(found["own_chosen"], mean[:8])


@pytest.mark.parametrize("kind", ["ipo", "sigmoid_norm", "simpo", "cpo"])
def test_a_mean_over_weighted_tokens_divides_by_the_weights(kind):
    """LD-DPO at 0 counts the first n* tokens of each response: the mean is over those."""
    module, batch = moved("ld", kind, ld_alpha=0.0), whole(pairs())
    with torch.no_grad():
        loss, _ = module.compare(batch)
        reference = module._refer(batch).logps if module.referenced else None
        mask = batch.mask[:, 1:]
        logps = token_logps(module.policy(batch.ids).logits, batch.ids, batch.mask)
    first = mask & (losses.ld_weights(mask, 0.0) > 0)
    assert (first.sum(1) < mask.sum(1)).any()
    sums = losses.sequence_logratio(logps, reference, first).chunk(2)
    n = zip(("n_chosen", "n_rejected"), first.sum(1).chunk(2), strict=True)
    n = {name: count for name, count in n if kind != "cpo" or name == "n_chosen"}
    expected = losses.preference_loss(kind, *sums, beta=0.1, reduction="none", **n)
    torch.testing.assert_close(loss, expected)


def test_the_likelihood_of_rpo_has_no_weights():
    batch = whole(pairs())
    plain, weighted = (moved(w, "rpo", options={"lam": 1.0}) for w in ("dpo", "uniform"))
    bare = moved("uniform", "sigmoid")
    found = weighted.compare(batch)[0] - bare.compare(batch)[0]
    likelihood = plain.compare(batch)[0] - moved("dpo", "sigmoid").compare(batch)[0]
    torch.testing.assert_close(found, likelihood)


def test_sampo_is_judged_by_the_mean_over_its_draws():
    module = moved("sampo")
    first, second = (module.rewards(pairs()) for _ in range(2))
    torch.testing.assert_close(first["own_chosen"], second["own_chosen"])
    torch.manual_seed(0)
    batch = module._refer(whole(pairs()))
    with torch.no_grad():
        drawn = torch.stack([module.sums(batch).own for _ in range(1000)])
    mean = torch.cat([first["own_chosen"], first["own_rejected"]])
    error = drawn.std(0) / len(drawn) ** 0.5
    assert error.max() > 0
    assert ((drawn.mean(0) - mean).abs() <= 5 * error + 1e-6).all()


def test_metrics_of_tokens_are_those_of_the_policy():
    module, batch = moved("otpo"), whole(pairs())
    _, seen = module.compare(batch, tokens=True)
    logits = module.policy(batch.ids).logits
    expected = losses.token_metrics(logits, batch.ids, batch.mask)
    assert {"entropy", "logits/chosen", "logits/rejected", "mean_token_accuracy"} == set(expected)
    assert all(torch.equal(seen[k], v) for k, v in expected.items())
    assert not set(expected) & set(module.compare(batch)[1])


@pytest.mark.parametrize("kind", [k for k in LOSSES if k not in ("kto", *GOLD)])
def test_every_loss_trains(kind):
    module = moved(kind=kind)
    loss, seen = module.compare(whole(pairs()))
    loss.mean().backward()
    assert all(p.grad.isfinite().all() for p in module.policy.parameters())
    assert any(p.grad.abs().sum() > 0 for p in module.policy.parameters())
    assert {"rewards/chosen", "rewards/accuracies", "logps/rejected"} <= set(seen)


# what must not matter ----------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", ["dpo", "uniform", "ld", "otpo"])
def test_padding_side_and_length_and_prompt_labels(weighting):
    data, module = pairs(), moved(weighting)
    expected, _ = module.compare(whole(data))
    for options in ({"length": 20}, {"side": "left"}, {"side": "left", "length": 20}):
        found, _ = module.compare(whole(data, **options))
        # float32 angles of the positions, and the solver's tolerance
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_swapping_a_pair_flips_the_margin():
    data, module = pairs(), moved("otpo")
    turned = Preferences("turned", tuple(p.swapped() for p in data.pairs), SYMBOLS)
    _, seen = module.compare(whole(data))
    _, other = module.compare(whole(turned))
    assert other["rewards/margins"].item() == pytest.approx(
        -seen["rewards/margins"].item(), rel=1e-5
    )


@pytest.mark.parametrize("weighting", ["dpo", "otpo"])
def test_accumulating_four_batches_is_one_large_batch(weighting):
    data, gradients = pairs(32), []
    for parts in (1, 4):
        module = moved(weighting)
        for k in range(parts):
            index = range(k * 32 // parts, (k + 1) * 32 // parts)
            loss, _ = module.compare(data.take(index))
            (loss.mean() / parts).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in module.policy.parameters()]))
    gap = (gradients[0] - gradients[1]).abs()
    scale = gradients[0].abs().max()
    assert gap.max() < 1e-6 * scale and gap.mean() < 1e-8 * scale


def test_float32_is_close_to_float64():
    data = pairs(32)
    gaps = []
    for weighting in ("dpo", "uniform", "otpo"):
        double = moved(weighting)
        single = copy.deepcopy(double).float()
        a, b = double.compare(whole(data))[0], single.compare(whole(data))[0]
        gaps.append((a - b.double()).abs())
    gaps = torch.cat(gaps)
    assert gaps.max() < 1e-4 and gaps.mean() < 1e-5


# references --------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights_from", ["policy", "reference"])
def test_log_probs_computed_once_are_those_of_the_reference(weights_from):
    data, module = pairs(10), moved("otpo", weights_from=weights_from)
    seen = 0
    referred = module.refer(data)
    for rows in ([3, 1, 7, 0], [2, 9, 8], [4, 6, 5]):
        batch = referred.take(rows)
        expected, _ = module.compare(batch.pairs)
        found, _ = module.compare(batch)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        seen += len(found)
    assert seen == 10


def test_rewards_are_plain_sums_in_order():
    data, module = pairs(10), moved("otpo")
    found = module.rewards(module.refer(data))
    batch = whole(data)
    logps, reference = (
        token_logps(m(batch.ids).logits, batch.ids, batch.mask)
        for m in (module.policy, module.reference)
    )
    s = losses.sequence_logratio(logps, reference, batch.mask[:, 1:])
    torch.testing.assert_close(
        torch.cat([found["chosen"], found["rejected"]]), s, rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(found["logp_chosen"], logps.sum(1)[:10], rtol=1e-6, atol=1e-6)
    own = module.sums(batch).own
    torch.testing.assert_close(found["own_rejected"], own[10:], rtol=1e-5, atol=1e-5)
    assert (found["own_rejected"] - found["rejected"]).abs().max() > 0.1
    plain = module.rewards(data)
    torch.testing.assert_close(plain["chosen"], found["chosen"], rtol=1e-6, atol=1e-6)


def test_lora_off_is_the_reference():
    pytest.importorskip("peft", reason="peft is not installed: pip install 'paperlab[llm]'")
    from paperlab.lm.hub import add_lora

    before = policy()
    module = PreferenceTuning(add_lora(copy.deepcopy(before), rank=2), "otpo", lr=0.05)
    assert module.reference is None
    trainable = [n for n, p in module.named_parameters() if p.requires_grad]
    assert trainable and all("lora" in n for n in trainable)
    batch = whole(pairs())
    assert module.compare(batch)[0].tolist() == pytest.approx([math.log(2)] * 8, abs=1e-6)
    tune(module, pairs(), batch_size=4, epochs=2)
    loss, _ = module.compare(batch)
    assert (loss - math.log(2)).abs().max() > 1e-3
    expected = token_logps(before(batch.ids).logits, batch.ids, batch.mask)
    torch.testing.assert_close(module._refer(batch).logps, expected, rtol=1e-5, atol=1e-5)


# training ----------------------------------------------------------------------------------------


def test_training_learns_the_labels_and_reports_them():
    data = pairs(32)
    module = PreferenceTuning(policy(scale=0.1), lr=3e-3, beta=0.5)
    done = tune(module, module.refer(data), batch_size=16, epochs=15, checks_per_epoch=2)
    assert done.steps == len(done.history) == 30
    assert done.history[0]["train_rewards/margins"] == 0
    found = module.rewards(data)
    assert (found["chosen"] > found["rejected"]).float().mean() > 0.9
    assert done.samples_per_second * done.seconds == pytest.approx(15 * 32)
    assert all({"train_loss", "train_logps/chosen", "lr"} <= {*row} for row in done.history)
    weights = sum(p.numel() for p in module.policy.parameters())
    assert done.parameters == {"dense": weights} and done.valid == done.test == {}


def test_validation_chooses_the_weights_and_a_logger_gets_all_metrics(tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    data, unseen = pairs(16), pairs(40, seed=5)
    module = PreferenceTuning(policy(scale=0.1), "otpo", lr=0.01, beta=0.5)
    parts = loop.Parts(module.refer(data), module.refer(unseen))
    logger = CSVLogger(tmp_path)
    options = {"batch_size": 8, "epochs": 6, "logger": logger, "log_every_n_steps": 1}
    done = tune(module, parts, **options)
    losses_seen = [row["loss"] for row in done.history]
    assert done.valid["loss"] == min(losses_seen) < losses_seen[-1]  # it overfits
    found = module.rewards(unseen)
    share = (found["chosen"] > found["rejected"]).float().mean().item()
    assert done.valid["unweighted/rewards/accuracies"] == pytest.approx(share)
    pair, seen = module.compare(whole(unseen))
    assert done.valid["loss"] == pytest.approx(pair.mean().item(), rel=1e-4)
    assert done.valid["scaled_coeff"] == pytest.approx(seen["scaled_coeff"].item(), rel=1e-4)
    written = next(tmp_path.rglob("metrics.csv")).read_text()
    assert "unweighted/rewards/margins" in written and "scaled_coeff" in written
    assert "mean_token_accuracy" in written and "num_tokens" in written
    for row in done.history:
        assert 0 < row["train_entropy"] < math.log(SYMBOLS + 2) and row["entropy"] > 0


def test_supervised_tuning_fits_the_chosen_responses():
    data = Preferences("one", (Pair((1,), (2, 3, 9), (4, 9)),) * 8, SYMBOLS)
    module = SupervisedTuning(policy(scale=0.02), lr=0.02)
    done = tune(module, data, batch_size=8, epochs=60)
    assert done.history[0]["train_loss"] == pytest.approx(math.log(11), rel=0.05)
    assert done.history[-1]["train_loss"] < 0.05
    out = module.policy.sample(torch.tensor([[1]]), 3, temperature=0)
    assert out[0].tolist() == [2, 3, 9]


def step_of(data, batch_size, accumulate, make):
    module = make(policy(scale=0.1))
    before = torch.cat([p.detach().flatten() for p in module.policy.parameters()])
    options = {"steps": 1, "seed": 3, "accumulate_grad_batches": accumulate}
    done = tune(module, data, batch_size=batch_size, **options)
    after = torch.cat([p.detach().flatten() for p in module.policy.parameters()])
    return after - before, done.history[0]["train_loss"]


@pytest.mark.parametrize(
    "make",
    [
        lambda p: SupervisedTuning(p, lr=1e-3),
        lambda p: SupervisedTuning(p, both=True, lr=1e-3, clip=0.01),
        lambda p: PreferenceTuning(p, "otpo", beta=0.5, lr=1e-3),
    ],
    ids=["chosen", "both, clipped", "preferences"],
)
def test_accumulated_batches_make_the_step_of_the_whole(make):
    """A mean over tokens is that of all tokens, however long the responses of a batch are."""
    one, loss = step_of(pairs(8, longest=20), 8, 1, make)
    for size in (4, 2, 1):
        parts, mean = step_of(pairs(8, longest=20), size, 8 // size, make)
        assert mean == pytest.approx(loss, rel=1e-5)
        assert torch.cosine_similarity(parts, one, 0) > 0.9999
    assert one.abs().max() > 5e-4


def test_checkpointing_and_bfloat16_train_alike():
    data, ends = pairs(16), []
    for checkpointing, precision in ((False, "32-true"), (True, "32-true"), (False, "bf16-mixed")):
        module = PreferenceTuning(policy(scale=0.1), "otpo", lr=1e-3, beta=0.5)
        module.policy.checkpointing = checkpointing
        referred = module.refer(data, precision=precision)
        done = tune(module, referred, batch_size=8, epochs=3, precision=precision)
        ends.append(done.history[-1]["train_loss"])
    assert ends[0] == pytest.approx(ends[1], abs=1e-6)
    assert ends[0] == pytest.approx(ends[2], abs=0.05)


def test_a_loss_that_is_not_finite_stops():
    module = PreferenceTuning(policy())
    with torch.no_grad():
        module.policy.norm.weight.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="loss is nan at step 0"):
        tune(module, pairs(), batch_size=8)


@pytest.mark.parametrize("kind", ["sigmoid", "ipo", "simpo", "rpo", "sigmoid_norm"])
def test_an_empty_prompt_scores_the_same_on_either_side_of_the_padding(kind):
    rows = (Pair((), (1, 2, 3, 9), (4, 9)), Pair((5, 6), (7, 9), (8, 1, 9)))
    data, module = Preferences("short", rows, SYMBOLS), PreferenceTuning(policy(), kind=kind)
    module.policy.load_state_dict(policy(seed=1).state_dict())
    right, left = (module.sums(data.take([0, 1], side)) for side in ("right", "left"))
    assert right.n.tolist() == left.n.tolist() == [4, 2, 2, 3]
    torch.testing.assert_close(left.logp, right.logp, rtol=1e-4, atol=1e-5)
    supervised = SupervisedTuning(module.policy, both=True)
    sides = [supervised.measure(data.take([0, 1], side))[0].item() for side in ("right", "left")]
    assert sides[0] == pytest.approx(sides[1], rel=1e-5)
    nothing = Preferences("nothing", (Pair((5,), (), (1, 9)),), SYMBOLS)
    with pytest.raises(ValueError, match="every response must have a token to score"):
        module.compare(nothing.take([0]))


def test_an_empty_response_is_refused_before_training():
    bad = Preferences("bad", (*pairs(4).pairs, Pair((1,), (), (2, SYMBOLS))), SYMBOLS)
    for make in (SupervisedTuning, PreferenceTuning):
        before = copy.deepcopy((module := make(policy())).state_dict())
        for data, part in ((bad, "train"), (loop.Parts(pairs(4), valid=bad), "valid")):
            with pytest.raises(ValueError, match=f"{part}: pair 4 has an empty response"):
                tune(module, data)
        for name, weight in module.state_dict().items():
            torch.testing.assert_close(weight, before[name])


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("kind", ["sigmoid", "ipo", "simpo", "orpo", "rpo"])
def test_pairs_at_the_edge_spoil_no_batch(weighting, kind):
    """No prompt, equal responses, responses of one token, beside an ordinary pair."""
    end = (SYMBOLS,)
    rows = (Pair((), end, end), Pair((1,), (2, *end), (2, *end)), Pair((), (3,), (4, 4, *end)))
    data = Preferences("edge", (*rows, *pairs(1).pairs), SYMBOLS)
    module = PreferenceTuning(policy(), weighting, kind)
    each, _ = module.compare(data.take(range(4)))
    each.mean().backward()
    assert each.isfinite().all()
    assert all(p.grad.isfinite().all() for p in module.policy.parameters())
    if weighting != "sampo":  # it draws
        for k in range(4):
            alone, _ = module.compare(data.take([k]))
            assert alone.item() == pytest.approx(each[k].item(), rel=2e-4, abs=1e-5)


def test_an_empty_part_is_refused_before_training():
    module, data = SupervisedTuning(policy()), pairs(4)
    with pytest.raises(ValueError, match="valid must hold at least one pair"):
        tune(module, loop.Parts(data, data.subset([])), batch_size=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weighting": "ot"}, "weighting must be one of dpo"),
        ({"kind": "kto"}, "kind must be one of sigmoid"),
        ({"weights_from": "prompt"}, "weights_from must be one of policy, reference"),
        ({"kind": "simpo", "weights_from": "reference"}, "has no reference"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"warmup": 1.0}, r"warmup must be in \[0, 1\), got 1.0"),
        ({"clip": 0.0}, "clip must be above 0"),
        ({"beta": math.nan}, "beta must be above 0"),
        ({"beta": -1.0}, "beta must be above 0"),
        ({"reg": -1.0}, "reg must be above 0"),
        ({"options": {"epsilon": 0.1}}, "options of sigmoid are beta: unknown epsilon"),
        ({"options": {"beta": 0.1}}, "options of sigmoid are none, not beta"),
        ({"kind": "simpo", "options": {"n_chosen": 3}}, "options of simpo are gamma, not n_chosen"),
        ({"kind": "tpo_l"}, "kind must be one of sigmoid"),
        ({"kind": "cdpo", "options": {"epsilon": 0.7}}, r"epsilon must be in \[0, 0.5\), got 0.7"),
        ({"ld_alpha": 1.5}, r"ld_alpha must be in \[0, 1\]"),
        ({"representation": "last"}, "representation must be one of predictor, token"),
    ],
)
def test_faults(change, message):
    with pytest.raises(ValueError, match=message):
        PreferenceTuning(policy(), **change)
