"""What an event of a category at a position contributes to a model's answer about a target.

Two measures of a grid (category, position), both for one category of the target:

* `learned`: from the model's vectors, exp(score) * norm (the authors' measure). It reads parts of a
  model, and suits some architectures better than others.
* `effect`: from the model's answers, the change of the logit, in nats, that one event makes. It is
  not in the paper, and reads the whole model.

Positions count from the target: column 0 is the most recent event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Num

    from ..data.store import Batch, Log


def learned(
    events: Float[Tensor, "*grid E"], target: Float[Tensor, "*grid E"], product: bool
) -> Float[Tensor, "*grid"]:
    """exp(<e~, v~> / sqrt(d)) * |e~ * v~|, and |e~| alone without ``product`` (DIN).

    From vectors of category and time only, as `InterestModel.encode` gives them.
    """
    score = (events * target).sum(-1) / events.shape[-1] ** 0.5
    return score.exp() * (events * target if product else events).norm(dim=-1)


@torch.no_grad()
def learned_grid(
    model, column: int, category: int, last: int, elapsed: Float[Tensor, " last"] | None = None
) -> Float[Tensor, "categories last"]:
    """`learned` for every category of an event and positions 1..last.

    model: an `InterestModel`. column: which of its sequence fields holds categories; the vectors of
    the other fields are put to 0. category: of the target. elapsed: hours from position 1..last to
    the target, for models that read them.
    """
    embed, size = model.embed, model.schema.categorical[model.embed.targets[column]].size
    start = int(embed.history_offsets[column])
    vectors = torch.zeros(size, model.d_event, device=embed.table.weight.device)
    vectors[:, column * embed.dim : (column + 1) * embed.dim] = embed.table.weight[
        start : start + size
    ]
    events = vectors[:, None].expand(-1, last, -1)  # a history of one category only, for each
    target = vectors[category].expand(size, -1)
    mask = torch.ones(size, last, dtype=torch.bool, device=vectors.device)
    if elapsed is not None:
        elapsed = elapsed.to(vectors).flip(0).expand(size, -1)
    events, target = model.encode(events, target, mask, elapsed)
    return learned(events, target[:, None], model.product).flip(1)


@torch.no_grad()
def effect(
    logit: Callable[[Batch], Float[Tensor, " B"]],
    batch: Batch,
    events: Int[Tensor, "C S"],
    neutral: Int[Tensor, " S"],
    last: int,
) -> Float[Tensor, "C last"]:
    """Mean change of a logit, in nats, when the event at a position becomes each of C others.

    logit: a model in evaluation mode, or any other function of a batch. batch: rows whose target
    the question is about. events: ids of the C events, one column a sequence field. neutral: the
    event against which they are measured. last: positions 1..last, all of them real in all rows.
    Raises ValueError when a row has fewer than ``last`` events.
    """
    if (batch.history[:, -last:, 0] == 0).any() or batch.history.shape[1] < last:
        raise ValueError(f"batch: every row needs at least last={last} events")
    tried = torch.cat([neutral[None], events]).to(batch.history)
    rows, n = len(batch.labels), len(tried)
    many = type(batch)(*(None if t is None else t.repeat(n, *[1] * (t.ndim - 1)) for t in batch))
    columns = []
    for p in range(1, last + 1):
        history = many.history.clone()
        history[:, -p] = tried.repeat_interleave(rows, 0)
        answer = logit(many._replace(history=history)).float().view(n, rows)
        columns.append((answer[1:] - answer[0]).mean(1))
    return torch.stack(columns, 1)


def recovered(model, log: Log, most: int = 8) -> tuple[dict[str, float], Float[Tensor, "3 last"]]:
    """How well a trained model has found the planted law of `worlds.interest_sequences`.

    model: an `InterestModel`, put into evaluation mode. log: one whose test rows all have the longest
    history, with decay in rank. most: target categories that are looked at, spread over all.

    Scores, means over those targets, against w g on the grid (category of the event, position):
    "vectors rank", Spearman's correlation of `learned_grid`; "answers r", Pearson's of `effect`, with
    the category across the ring as the neutral one; "answers decay", `fitted_decay` of the effects of
    the target's own category. Then those effects, in nats, of events of the own category, of the next
    on the ring and of the one after that.
    """
    last, categories = log.schema.length, len(log.truth.weight) - 1
    items = (log.schema.categorical[0].size - 1) // categories
    every, batch = torch.arange(1, categories + 1), log.test.take(slice(0, 32))
    g = torch.from_numpy(log.truth.g(torch.arange(1.0, last + 1).double().numpy()))
    ids = torch.stack([items * (every - 1) + 1, every], 1)  # of one event a category
    model.eval()
    ranks, lines, effects = [], [], []
    for c in range(0, categories, max(1, categories // most)):
        planted = torch.from_numpy(log.truth.weight[1:, c + 1, None]) * g
        asked = batch._replace(ids=ids[c].expand(len(batch.ids), 2).to(batch.ids))
        found = effect(model, asked, ids, ids[(c + categories // 2) % categories], last)
        ranks.append(spearman(learned_grid(model, 1, c + 1, last)[1:], planted))
        lines.append(
            torch.corrcoef(torch.stack([found.double().flatten(), planted.flatten()]))[0, 1]
        )
        effects.append(found[[(c + k) % categories for k in range(3)]])
    near = torch.stack(effects).mean(0)
    scores = {
        "vectors rank": sum(ranks) / len(ranks),
        "answers r": torch.stack(lines).mean().item(),
    }
    return scores | {"answers decay": fitted_decay(near[0])}, near


def spearman(a: Num[Tensor, "*grid"], b: Num[Tensor, "*grid"]) -> float:
    """Correlation of the ranks of two grids, in [-1, 1]; ties share their mean rank.

    NaN when either is constant.
    """
    x, y = (_ranks(v.flatten().double()) for v in (a, b))
    x, y = x - x.mean(), y - y.mean()
    return (x @ y / (x.norm() * y.norm())).item()


def fitted_decay(row: Float[Tensor, " P"]) -> float:
    """The lambda in (0, 1] of a * lambda^(p - 1) + c that fits a row of positions 1..P best.

    Least squares in a and c for each of 999 lambdas (P >= 3). A row that strays from its mean by
    less than 5 % of its largest value does not decay: 1.
    Raises ValueError for fewer than 3 positions.
    """
    if len(row) < 3:
        raise ValueError(f"row needs at least 3 positions, got {len(row)}")
    y = row.double() - row.double().mean()
    if y.abs().max() <= 0.05 * row.abs().max():
        return 1.0
    rates = torch.arange(1, 1000, dtype=torch.float64) / 1000
    shape = rates[:, None] ** torch.arange(len(row))
    shape = shape - shape.mean(1, keepdim=True)
    explained = (shape @ y) ** 2 / shape.square().sum(1)
    return rates[explained.argmax()].item()


def _ranks(values: Tensor) -> Tensor:
    _, place, count = values.unique(return_inverse=True, return_counts=True)
    return (count.cumsum(0) - (count - 1) / 2.0).double()[place]
