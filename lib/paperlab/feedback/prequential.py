"""Test-then-train over periods: a method is scored on each period before it may learn from it.

    for t = first, first + 1, ...:   test on D_t with what was learned from D_0..D_{t-1},  then learn D_t

Gama et al., "On evaluating stream learning algorithms", Machine Learning 2013. A method that is
tested sees no labels: they are NaN until the period has been scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, Self

import torch
from torch import nn

from .. import checks, metrics
from ..data import validation
from ..data.schema import Schema
from ..data.store import OPTIONAL, Split

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Stream:
    """Rows in periods, oldest first.

    truth: the known click probabilities of each period's rows; None for real data.
    Raises ValueError, in one line, for rows that do not fit the schema.
    """

    name: str
    schema: Schema
    periods: tuple[Split, ...]
    truth: tuple[Float[torch.Tensor, " n"], ...] | None = None

    def __post_init__(self):
        for t, period in enumerate(self.periods):
            validation.split(f"{self.name}.{t}", self.schema, period)


class Method(Protocol):
    """What learns along a stream."""

    def predict(self, period: Split) -> Float[torch.Tensor, " n"]:
        """Logits of the rows of the next period, whose labels are NaN."""

    def update(self, periods: Sequence[Split]) -> None:
        """Learn; ``periods`` are all so far, of which the last has just been tested."""


def test_then_train(
    method: Method, stream: Stream, first: int
) -> Iterator[tuple[int, Float[torch.Tensor, " n"]]]:
    """Yield (t, logits) of every period from ``first`` on; the periods before it are learned at once.

    first: in 1..periods - 1.
    Raises ValueError for another one, and for logits of another shape or that are NaN.
    """
    periods = stream.periods
    checks.inside(f"[1, {len(periods) - 1}]", first=first)
    method.update(periods[:first])
    for t in range(first, len(periods)):
        period = periods[t]
        hidden = period.values.clone()
        hidden[:, period.n_numeric :] = float("nan")
        logits = method.predict(replace(period, values=hidden))
        if logits.shape != (len(period),) or logits.isnan().any():
            raise ValueError(f"period {t}: a logit that is no NaN is needed for each row")
        yield t, logits
        if t + 1 < len(periods):
            method.update(periods[: t + 1])


test_then_train.__test__ = False  # pytest: no test


def rows(stream: Stream, tested: Iterable[tuple[int, Float[torch.Tensor, " n"]]]) -> list[dict]:
    """One row of metrics a tested period: period, auc, logloss, tempered, temperature.

    tempered: log loss of logits / temperature, whose temperature was fitted to the period tested
        before (1 for the first). With a known truth also exact_auc, kl, and tempered_kl.
    """
    found, t_before = [], 1.0
    for t, logits in tested:
        labels = stream.periods[t].labels[:, 0]
        row = {"period": t, "auc": metrics.auc(logits, labels)}
        row |= {"logloss": metrics.logloss(logits, labels), "temperature": t_before}
        row["tempered"] = metrics.logloss(logits / t_before, labels)
        if stream.truth is not None:
            p = stream.truth[t]
            row |= {"exact_auc": metrics.exact_auc(logits, p), "kl": metrics.kl(logits, p)}
            row["tempered_kl"] = metrics.kl(logits / t_before, p)
        found.append(row)
        t_before = metrics.temperature(logits, labels)
    return found


def joined(periods: Sequence[Split]) -> Split:
    """The rows of several periods as one split; they share one table of events."""
    if len(periods) == 1:
        return periods[0]
    columns = {name: [getattr(p, name) for p in periods] for name in ("ids", "values", *OPTIONAL)}
    whole = {n: torch.cat(c) for n, c in columns.items() if c[0] is not None}
    return replace(periods[0], **whole)


def train(model: nn.Module, rows: Split, *, epochs: int, batch_size: int, seed: int) -> None:
    """Passes over the rows with a fresh optimiser: `model.loss` of a batch, `configure_optimizers`.

    A plain loop: a period is a few dozen steps, of which a trainer's start would cost as much.
    Raises FloatingPointError for a loss that is not finite.
    """
    optimiser, order = model.configure_optimizers(), torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(epochs):
        for index in torch.randperm(len(rows), generator=order).split(batch_size):
            loss = model.loss(rows.take(index))
            if not loss.isfinite():
                raise FloatingPointError("the loss is not finite; lower the learning rate")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    model.eval()


class Trained:
    """A model that is trained again after each period: fine-tuning, replay or retraining.

    model: has ``loss(batch)``, ``configure_optimizers()`` and logits from ``forward(batch)``.
    epochs: passes a period. first_epochs: passes over the periods before the first test.
    window: latest periods that are trained on; None: all so far.
    replay: rows drawn from the periods before the window, added to each period's.
    restart: from the weights after the first periods, else from the last weights. Fine-tuning is
        window 1 without restart, the paper's batch update BU-w is window w with it.
    Raises ValueError for values out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        epochs: int = 1,
        first_epochs: int | None = None,
        batch_size: int = 256,
        window: int | None = 1,
        replay: int = 0,
        restart: bool = False,
        seed: int = 0,
    ):
        first_epochs = epochs if first_epochs is None else first_epochs
        checks.whole(epochs=epochs, first_epochs=first_epochs, batch_size=batch_size)
        checks.whole(window=1 if window is None else window)
        checks.whole(0, replay=replay, seed=seed)
        self.model, self.epochs, self.first_epochs = model, epochs, first_epochs
        self.batch_size, self.window, self.replay = batch_size, window, replay
        self.restart, self.seed, self.start = restart, seed, None

    def update(self, periods: Sequence[Split]) -> Self:
        """Train on the window; the first call trains on all periods."""
        options = {"batch_size": self.batch_size, "seed": self.seed + 1_000 * len(periods)}
        if self.start is None:
            train(self.model, joined(periods), epochs=self.first_epochs, **options)
            self.start = deepcopy(self.model.state_dict())
            return self
        if self.restart:
            self.model.load_state_dict(self.start)
        cut = 0 if self.window is None else max(0, len(periods) - self.window)
        latest = [*periods[cut:]]
        if self.replay and cut:
            past, draw = joined(periods[:cut]), torch.Generator().manual_seed(options["seed"])
            latest.append(past.rows(torch.randperm(len(past), generator=draw)[: self.replay]))
        train(self.model, joined(latest), epochs=self.epochs, **options)
        return self

    @torch.no_grad()
    def predict(self, period: Split) -> Float[torch.Tensor, " n"]:
        """Logits, in eval mode."""
        self.model.eval()
        return self.model(period.take(slice(None))).float()
