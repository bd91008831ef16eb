"""Studies of preference tuning on pairs whose truth is known.

Every study gives one row per method and seed. All methods start from one language model, trained on
both responses of every training pair, and share the reference, the pairs, their order, the epochs,
and the learning rates and factors of beta tried. Validation pairs select rate, factor and epoch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .. import checks, loop, metrics, trials
from ..lm.preferences import Preferences
from ..lm.tiny_lm import TinyLM
from ..lm.training import SupervisedTuning
from . import losses, otpo
from .tuning import PreferenceTuning, ReferredPairs
from .worlds.toys import KeyTokens, decisive_pairs, shared_pairs

if TYPE_CHECKING:
    from jaxtyping import Float

CPU = {"batch_size": 32, "precision": "32-true", "accelerator": "cpu"}
CHOSEN_BY = ("rewards/accuracies", "higher")  # of each method's own score, on validation pairs
LONGEST = 48  # tokens of a sampled response
TESTED = 500  # test pairs of `key_tokens`; the other parts are smaller
# Settings of `KeyTokens` at which a tuned DPO stays below a perfect ranking.
TASK = {"strength": 1.0, "kinds": 8}


def read(data: Preferences, seed: int, dim: int = 32, layers: int = 2, **options) -> TinyLM:
    """A small language model after three epochs on both responses of every pair."""
    torch.manual_seed(seed)
    module = SupervisedTuning(TinyLM(data.vocabulary, dim, layers, heads=2), both=True, lr=0.003)
    loop.fit(module, data, epochs=3, seed=seed, **CPU | options)
    return module.policy


def tuned(
    policy: nn.Module,
    train: Preferences | ReferredPairs,
    valid: Preferences | ReferredPairs,
    methods: Mapping[str, dict],
    seed: int,
    rates: Iterable[float] = (1e-3,),
    scales: Iterable[float] = (1.0,),
    **options,
) -> Iterator[tuple[dict, PreferenceTuning]]:
    """One row of `trials.compare` per method, with its ``beta``, and its module: a tuned copy of ``policy``.

    train, valid: pairs, or the output of `PreferenceTuning.refer`, which spares the reference's pass.
    methods: name -> arguments of `PreferenceTuning`.
    rates, scales: learning rates, and factors of a method's beta. Every pair of both is tried; the
        first of those with the highest validation accuracy is taken.
    options: passed to `loop.fit`.
    """
    first = PreferenceTuning(policy)
    parts = (p if isinstance(p, ReferredPairs) else first.refer(p) for p in (train, valid))
    parts = loop.Parts(*parts)
    options = {"rates": tuple(rates), "metric": CHOSEN_BY} | CPU | options
    for name, arguments in methods.items():
        best = None
        for scale in scales:
            own = arguments | {"beta": scale * arguments.get("beta", 0.1)}
            build = {name: lambda data, width, own=own: PreferenceTuning(copied(policy), **own)}
            [(row, module)] = trials.compare(build, parts, seeds=[seed], **options)
            quality = row[f"valid_{CHOSEN_BY[0]}"]
            if best is None or quality > best[0]:
                best = quality, row | {"beta": own["beta"], "scale": scale}, module
        yield best[1:]


def copied(policy: nn.Module) -> nn.Module:
    """A copy with parameters of its own, except for the frozen ones, which both share.

    A checkpoint with a LoRA adapter costs the adapter's memory alone.
    """
    frozen = {id(p): p for p in policy.parameters() if not p.requires_grad}
    return copy.deepcopy(policy, frozen)


def log_ratios(
    module: PreferenceTuning, before: dict[str, Tensor], data: Preferences
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Plain log-ratios of chosen and rejected responses, and the margin under the method's weights.

    before: `PreferenceTuning.rewards` of the same pairs before the tuning.
    """
    now = module.rewards(data, 128)
    chosen, rejected = (now[f"logp_{side}"] - before[f"logp_{side}"] for side in losses.SIDES)
    return chosen, rejected, now["own_chosen"] - now["own_rejected"]


def shared(test: Preferences, *others: Preferences) -> int:
    """Number of test pairs whose prompt and both responses, in any order, are also in ``others``."""
    key = lambda p: (p.prompt, frozenset((p.chosen, p.rejected)))  # noqa: E731
    known = {key(p) for data in others for p in data.pairs}
    return sum(key(p) in known for p in test.pairs)


def trivial(data: Preferences, right: Float[Tensor, " N"], seed: int) -> dict[str, float]:
    """Accuracy of rivals that use length alone, where a tie counts half, and of a coin.

    right: 1 if the chosen response is better, -1 if it is worse, 0 for a tie, which is left out.
    """
    longer = torch.tensor([len(p.chosen) - len(p.rejected) for p in data.pairs]).sign()
    share = ((longer * right)[right != 0].double().mean().item() + 1) / 2
    draw = torch.Generator().manual_seed(seed)
    coin = torch.randint(2, (int((right != 0).sum()),), generator=draw).double().mean().item()
    return {"the longer": share, "the shorter": 1 - share, "coin": coin}


def key_tokens(
    methods: Mapping[str, dict],
    cue: float,
    pairs: int,
    seed: int,
    validated: float | None = None,
    **options,
) -> tuple[list[dict], dict[str, float]]:
    """Methods and `trivial` rivals on `KeyTokens`, where length is a spurious cue; facts of the data.

    Rows hold, on test pairs without a cue, ``accuracy`` of the plain log-ratios s and ``own
    accuracy``; ``slope`` = (s_long - s_short) / (difference in length) at equal content, in nats per
    token; ``length``: tokens of sampled responses, at most `LONGEST`. Facts: the number of ``shared``
    test pairs; the share of ``wrong labels`` among training pairs of unequal rewards.
    cue: of the training pairs, in [-1, 1], see `KeyTokens`; its other settings are `TASK`.
    validated: cue of the validation pairs, that of the training pairs where None.
    options: those of `tuned`.
    """
    task, fresh = KeyTokens(cue=cue, **TASK), KeyTokens(**TASK)
    train = task.pairs(pairs, 4 * seed)
    chooser = task if validated is None else KeyTokens(cue=validated, **TASK)
    valid = chooser.pairs(TESTED // 2, 4 * seed + 1)
    test = fresh.pairs(TESTED, 4 * seed + 2)
    probe = fresh.probe(TESTED // 4, 4 * seed + 3)
    truth = torch.tensor([p.truth.margin for p in test.pairs]).sign()
    labels = torch.tensor([p.truth.margin for p in train.pairs])
    facts = {"shared": shared(test, train, valid)}
    facts["wrong labels"] = (labels[labels != 0] < 0).double().mean().item()
    start = read(train, seed)
    before = [PreferenceTuning(start).rewards(data, 128) for data in (test, probe)]
    prompts = torch.tensor([p.prompt for p in test.pairs[:64]])
    empty = dict.fromkeys(("lr", "edge", "beta", "dense", "slope", "size of slope", "length"))
    rows = [
        {"model": m, "seed": seed, "cue": cue, "accuracy": a, "own accuracy": a, **empty}
        for m, a in trivial(test, truth, seed).items()
    ]
    for row, module in tuned(start, train, valid, methods, seed, **options):
        chosen, rejected, own = log_ratios(module, before[0], test)
        long, short, _ = log_ratios(module, before[1], probe)
        draw = torch.Generator().manual_seed(seed)
        said = module.policy.sample(prompts, LONGEST, stop=train.eos, generator=draw)
        slope = (long - short).mean().item() / (task.highest - task.lowest)
        rows.append(
            {
                **{k: row[k] for k in ("model", "seed", "lr", "edge", "beta", "dense")},
                "cue": cue,
                "accuracy": _agree(chosen - rejected, truth),
                "own accuracy": _agree(own, truth),
                "slope": slope,
                "size of slope": abs(slope),
                "length": (said != train.eos).sum(1).double().mean().item(),
            }
        )
    return rows, facts


def cue_effect(rows: Iterable[dict]) -> list[dict]:
    """Slopes of `key_tokens` at the largest cue minus those at cue 0."""
    slope = {(r["cue"], r["model"], r["seed"]): r["slope"] for r in rows if r["slope"] is not None}
    top = max(cue for cue, *_ in slope)
    return [
        {"model": model, "seed": seed, "added slope": value - slope[0.0, model, seed]}
        for (cue, model, seed), value in slope.items()
        if cue == top
    ]


def decisive(methods: Mapping[str, dict], pairs: int, seed: int, **options) -> list[dict]:
    """Methods on pairs whose responses differ in one decisive token of the chosen response.

    Rows hold, on unseen pairs, ``accuracy``; ``chosen``: the chosen response's change of log pi, in
    nats; ``margin``; and the mean weights of the decisive token (``weight``) and of the ``others``,
    from the states of the policy before the tuning.
    """
    parts = [(pairs, 0), (TESTED // 4, 1), (TESTED // 2, 2)]
    train, valid, test = (decisive_pairs(count, seed=4 * seed + k) for count, k in parts)
    start, marks = read(train, seed), torch.tensor([p.truth.marks[0] for p in test.pairs])
    before, batch = PreferenceTuning(start).rewards(test, 128), test.take(range(len(test)))
    with torch.no_grad():
        hidden, mask = start(batch.ids).hidden, batch.mask[:, 1:]
    rows = []
    for row, module in tuned(start, train, valid, methods, seed, **options):
        chosen, rejected, _ = log_ratios(module, before, test)
        weights, _ = module.weigh(hidden, mask)
        weights = mask.float() if weights is None else weights
        weights = weights[: len(test)][mask[: len(test)]].view(marks.shape)
        rows.append(
            {
                **{k: row[k] for k in ("model", "seed", "lr", "edge", "beta")},
                "accuracy": (chosen > rejected).double().mean().item(),
                "chosen": chosen.mean().item(),
                "margin": (chosen - rejected).mean().item(),
                "weight": weights[marks].mean().item(),
                "others": weights[~marks].mean().item(),
            }
        )
    return rows


def shared_words(
    pairs: int, seed: int, grid: Iterable[float] = (0.01, 0.03, 0.1, 0.3, 1.0), common: int = 10
) -> tuple[list[dict], TinyLM, Preferences]:
    """How well OTPO's weights separate shared from unshared words; the model and pairs used.

    States are ``planted`` (a shared word has the same random state in both responses), or those of a
    model trained on the pairs: ``predictor`` or ``token`` (`otpo.token_states`). Rows hold, for each
    ``eps_1`` of the grid, the ``auc`` of the weight as a score for shared words within a chosen
    response (mean over at most 100), and the ``spread``, standard deviation over mean.
    """
    checks.whole(pairs=pairs, common=common)
    data = shared_pairs(pairs, common, chosen_only=common, rejected_only=common // 2, seed=seed)
    model, few = read(data, seed), data.subset(range(min(100, pairs)))
    batch = few.take(range(len(few)))
    marks = [torch.tensor([p.truth.marks[side] for p in few.pairs]) for side in (0, 1)]
    with torch.no_grad():
        hidden = model(batch.ids).hidden
    masks = batch.mask[:, 1:].chunk(2)
    given = {k: (*otpo.token_states(hidden, k).chunk(2), *masks) for k in ("predictor", "token")}
    draw = torch.Generator().manual_seed(seed)
    states = [torch.randn(*m.shape, 64, generator=draw) for m in marks]
    same = torch.randn(len(few) * common, 64, generator=draw)
    for state, mark in zip(states, marks, strict=True):
        state[mark] = same
    given["planted"] = (*states, *(torch.ones_like(m) for m in marks))
    label, rows = marks[0].flatten(), []
    group = torch.arange(len(few)).repeat_interleave(marks[0].shape[1])
    for kind, tensors in given.items():
        for eps in grid:
            weights = otpo.token_weights(*tensors, reg=eps).chosen[tensors[2]]
            auc = metrics.gauc(weights, label.long(), group)
            spread = (weights.std() / weights.mean()).item()
            row = {"states": kind, "seed": seed, "eps_1": eps, "auc": auc, "spread": spread}
            rows.append(row)
    return rows, model, few


def _agree(score: Float[Tensor, " N"], truth: Float[Tensor, " N"]) -> float:
    """Share of scores with the sign of the truth, among those whose truth is not 0."""
    return (score.sign() == truth)[truth != 0].double().mean().item()
