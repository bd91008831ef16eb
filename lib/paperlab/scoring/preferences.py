"""Preference tuning of a language model on pairs of text: held-out accuracy, resampled over pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from .. import checks
from ..align import studies
from ..align.tuning import PreferenceTuning
from ..lm import hub
from ..lm.preferences import Preferences, from_text
from ..lm.words import in_words
from .scores import Scores

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from ..data.kinds import PreferenceTexts

TINY = "tiny"  # the model that needs no checkpoint
FEWEST = 20  # pairs


def score(
    data: PreferenceTexts,
    contenders: Mapping[str, dict],
    *,
    seeds: Sequence[int],
    tell: Callable[[str], None],
    model: str = "smollm2-135m",
    pairs: int = 96,
    tested: int = 150,
    prompt: int = 32,
    longest: int = 32,
    epochs: int = 1,
    rates: Sequence[float] = (0.0001, 0.0003, 0.001),
    scales: Sequence[float] = (1.0,),
    batch_size: int = 8,
) -> Scores:
    """Tune a LoRA adapter of one checkpoint with every method, and choose between unseen responses.

    At the defaults a step of SmolLM2-135M takes about 7 s of one core. The reference is scored once,
    for all methods, rates and seeds; tuned models share its frozen weights.

    contenders: name -> arguments of `PreferenceTuning`.
    model: a model of `paperlab data`, a Hugging Face folder, or "tiny": a `TinyLM` over words that has
        read the training responses.
    pairs: training pairs at most; a third as many choose rate, beta and epoch.
    tested: test pairs at most. All are split by prompt, once; a seed draws the adapter and the order
        of pairs.
    prompt, longest: tokens that are kept of a prompt's end and of a response's start.
    rates, scales: learning rates, and factors of a method's beta; all are tried at the first seed.
    epochs: at most; validation accuracy chooses.
    Raises ValueError for fewer than 20 pairs that differ.
    """
    checks.whole(pairs=pairs, tested=tested, prompt=prompt, longest=longest)
    start = None if model == TINY else hub.load_checkpoint(model)
    train, valid, test = parts(data, start, pairs, tested, prompt, longest)
    longer = torch.tensor([len(p.chosen) - len(p.rejected) for p in test.pairs]).double()
    trivial = {"the longer": _right(longer), "the shorter": _right(-longer)}
    trivial["coin"] = np.full(len(test), 0.5)
    away = longer - longer.mean()
    rows, units, settled = [], {}, {}
    terms = {"epochs": epochs, "batch_size": batch_size}
    if start is not None:
        start.requires_grad_(False)
    for seed in seeds:
        torch.manual_seed(seed)
        if start is None:
            policy = studies.read(train, seed, dim=64)
        else:
            policy = hub.add_lora(studies.copied(start))
        if (
            start is None or seed == seeds[0]
        ):  # an adapter starts at zero: one reference for all seeds
            first = PreferenceTuning(policy)
            known = [first.refer(part, batch_size) for part in (train, valid, test)]
        for name, right in trivial.items():
            units[name, seed] = right
            rows.append({"model": name, "seed": seed, "accuracy": float(right.mean())})
            rows[-1] |= {
                "slope": None,
                "dense": 0,
                "lr": None,
                "beta": None,
                "seconds": 0.0,
                "edge": False,
            }
        before = torch.stack([logps.sum() for logps in known[2].logps]).view(2, -1).double()
        for name, arguments in contenders.items():
            one = {name: arguments}
            grid = settled.get(name, (rates, scales))
            for row, module in studies.tuned(policy, *known[:2], one, seed, *grid, **terms):
                settled[name] = [row["lr"]], [row["scale"]]
                after = module.rewards(known[2], batch_size)
                now = torch.stack([after["logp_chosen"], after["logp_rejected"]]).double()
                chosen, rejected = now - before
                margin = chosen - rejected
                units[name, seed] = _right(margin)
                row |= {"accuracy": float(units[name, seed].mean())}
                row |= {"slope": (margin @ away / away.square().sum()).item()}
                rows.append({k: row[k] for k in rows[0]})
                tell(
                    f"{name}, seed {seed}: accuracy {row['accuracy']:.3f}, rate {row['lr']:g}, beta {row['beta']:g}"
                )
    split = f"{len(train)} pairs trained on, {len(valid)} chose rate, beta and epoch, {len(test)} tested"
    columns = ("slope", "dense", "lr", "beta", "seconds")
    floor = [*trivial]
    return Scores(rows, "accuracy", units, "two-level", floor, columns=columns, notes=[split])


def parts(
    data: PreferenceTexts,
    start: hub.Checkpoint | None,
    pairs: int,
    tested: int,
    prompt: int,
    longest: int,
) -> tuple[Preferences, Preferences, Preferences]:
    """Training, validation and test pairs, split by prompt; of no use: pairs of equal responses."""
    every = from_text(data.name, data.rows, data.set_aside)
    every = in_words(every) if start is None else hub.tokenise(every, start.tokenizer)
    every = every.truncated(prompt, longest)
    if len(every) < FEWEST:
        raise ValueError(f"{data.name} has {len(every)} pairs that differ, {FEWEST} are needed")
    train, valid, test = every.split(0, (0.6, 0.15, 0.25))
    train, valid, test = (
        _by_length(part.subset(range(min(most, len(part)))))
        for part, most in ((train, pairs), (valid, max(1, pairs // 3)), (test, tested))
    )
    if not (len(train) and len(valid) and len(test)):
        raise ValueError(f"{data.name} has too few prompts for three parts")
    if count := studies.shared(test, train, valid):
        raise ValueError(f"{data.name}: {count} test pairs are training pairs too")
    return train, valid, test


def _by_length(part: Preferences) -> Preferences:
    """The pairs in the order of their longer row, so that a batch that is scored has little padding."""
    size = [len(p.prompt) + max(len(p.chosen), len(p.rejected)) for p in part.pairs]
    return part.subset(sorted(range(len(part)), key=size.__getitem__))


def _right(margin: Float[Tensor, " n"]) -> Float[np.ndarray, " n"]:
    """1 where the chosen response is ahead, 1/2 for a tie, else 0."""
    return (0.5 * (margin.sign() + 1)).numpy()
