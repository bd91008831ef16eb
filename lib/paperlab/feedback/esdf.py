"""ESDF: Wang, Zhang, Da, Zeng, "Delayed Feedback Modeling for the Entire Space Conversion Rate
Prediction", AAAI 2021 (arXiv 2011.11826).

Of an impression: click y, conversion observed so far z, its delay d in days, days since the click e.

    p = sigmoid(ctr(x)),  v = sigmoid(cvr(x)),  q = p v                  1. towers on shared tables
    f(. | x) = softmax(delay(x)) over days 0..T                          2. delay, no parametric form
    S(e | x) = sum_{s > e} f(s | x)                                      3. not converted by day e
    y z:        q f(d)                                                   4. likelihood of what is seen
    y (1 - z):  p - q + q S(e)
    1 - y:      1 - p
    w = q S(e) / (p - q + q S(e))                                        5. E-step, a constant
    M-step: -w [ln q + ln S(e)] - (1 - w) ln(p - q) for y (1 - z)        6. the rest as in 4

The equations were derived anew from two readings of the paper. Towers, optimiser and the start of
the delay are ours. The mass after day T cannot be observed; the default has none, ``late`` adds a
slot for it. Conversions and delays are taken to be independent of e, given x.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks
from ..data.schema import Schema
from ..data.store import Batch, Log, Split
from ..nn.click import ClickModel
from ..nn.mlp import MLP

if TYPE_CHECKING:
    from jaxtyping import Float, Num

LABELS = ("click", "observed", "delay", "elapsed")
NEVER = torch.finfo(torch.float32).min / 4  # ln 0 that multiplies and adds without NaN


def log_survival(
    logits: Float[Tensor, "n slots"], elapsed: Num[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """ln S(e), step 3: 0 where nothing has elapsed (e < 0), very negative where S is 0."""
    slot = torch.arange(logits.shape[1], device=logits.device)
    later = torch.where(slot > elapsed[:, None], logits, NEVER)
    return later.logsumexp(1) - logits.logsumexp(1)


def posterior(
    conversion: Float[Tensor, " n"], survival: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """w of step 5 from the logit of v and ln S: chance that an unconverted click will convert."""
    will, wont = F.logsigmoid(conversion) + survival, F.logsigmoid(-conversion)
    return (will - torch.logaddexp(will, wont)).exp()


def negative_log_likelihood(
    click: Float[Tensor, " n"],
    conversion: Float[Tensor, " n"],
    delay: Float[Tensor, "n slots"],
    labels: Num[Tensor, "n 4"],
    *,
    em: bool = False,
    reduction: Literal["mean", "none"] = "mean",
) -> Float[Tensor, ""] | Float[Tensor, " n"]:
    """Step 4, or with ``em`` the M-step's loss 6 with w of the current parameters; in nats.

    click, conversion: logits of p and v. delay: logits of f. labels: columns `LABELS`; delay is read
    where a conversion was observed, elapsed where a click has none.
    At the same parameters both have the same gradient (Fisher's identity), so that one gradient step
    a batch is the same step.
    """
    y, z, d, e = labels.unbind(1)
    no_click = F.logsigmoid(-click)
    log_p, log_v = F.logsigmoid(click), F.logsigmoid(conversion)
    log_not_v = F.logsigmoid(-conversion)
    slot = d.long().clamp(0, delay.shape[1] - 1)
    log_f = delay.log_softmax(1).gather(1, slot[:, None]).squeeze(1)
    log_s = log_survival(delay, e)
    if em:
        w = posterior(conversion, log_s).detach()
        waiting = w * (log_v + log_s) + (1 - w) * log_not_v
    else:
        waiting = torch.logaddexp(log_not_v, log_v + log_s)
    clicked = log_p + torch.where(z == 1, log_v + log_f, waiting)
    nll = -torch.where(y == 1, clicked, no_click)
    return nll if reduction == "none" else nll.mean()


class Delay(nn.Module):
    """Logits of f over the slots: ``free`` (the paper), ``geometric`` (DFM's shape) or ``global``.

    geometric: f(s) prop. to exp(-lambda s) with lambda = exp(g(x)), renormalised over the slots.
    global: one distribution for all rows.
    """

    def __init__(self, kind: str, d_in: int, widths: Sequence[int], slots: int):
        super().__init__()
        checks.one_of(("free", "geometric", "global"), delay=kind)
        self.kind, self.slots = kind, slots
        out = {"free": slots, "geometric": 1}.get(kind)
        self.tower = MLP(d_in, widths, out=out) if out else None
        self.free = nn.Parameter(torch.zeros(slots)) if kind == "global" else None

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n slots"]:
        if self.kind == "global":
            return self.free.expand(len(x), -1)
        if self.kind == "free":
            return self.tower(x)
        days = torch.arange(self.slots, device=x.device)
        return -self.tower(x).clamp(max=5).exp() * days

    @torch.no_grad()
    def start_at(self, shares: Float[Tensor, " slots"]) -> None:
        """Begin at a distribution, or at the geometric one of its mean."""
        log = shares.clamp(min=1e-4).log()
        if self.kind == "global":
            self.free.copy_(log)
        elif self.kind == "free":
            self.tower[-1].bias.copy_(log)
        else:
            days = torch.arange(len(shares))
            mean = (shares @ days.float()).clamp(min=0.05)
            self.tower[-1].bias.fill_(torch.log(torch.log1p(1 / mean)).item())


class Predicted(NamedTuple):
    """Logits of p and v, and of f."""

    click: Float[Tensor, " n"]
    conversion: Float[Tensor, " n"]
    delay: Float[Tensor, "n slots"]


class ESDF(ClickModel):
    """Three towers on shared tables; the score of a row is the logit of v.

    delay: ``free`` (the paper), ``geometric`` (DFM), ``global``, or None: observed labels are taken
        for final ones (ESMM).
    entire: whether impressions without a click train too; False trains on clicks alone (p = 1).
    em: the paper's form of the loss; False: the likelihood itself. The steps are the same.
    days: T, the last day on which a conversion counts. late: one more slot, for what comes later.
    widths: of each tower. dim, options: see `ClickModel`. Adam's rate falls to 0 linearly.
    Raises ValueError for values out of range and a schema without the labels `LABELS`.
    """

    select = ("nll", "lower")

    def __init__(
        self,
        schema: Schema,
        dim: int = 8,
        *,
        delay: Literal["free", "geometric", "global"] | None = "free",
        entire: bool = True,
        em: bool = True,
        days: int = 7,
        late: bool = False,
        widths: Sequence[int] = (32, 16),
        **options,
    ):
        checks.whole(0, days=days)
        if schema.labels != LABELS:
            raise ValueError(f"labels must be {', '.join(LABELS)}, got {', '.join(schema.labels)}")
        super().__init__(schema, dim, **options)
        self.entire, self.em, self.slots = entire, em, days + 1 + late
        self.embed.sparse = self.embed.table.sparse = False  # small tables, a rate for each step
        self.ctr, self.cvr = (MLP(self.d_in, widths, out=1) for _ in range(2))
        self.delay = None if delay is None else Delay(delay, self.d_in, widths, self.slots)

    def start_at(self, train: Split) -> Self:
        """Begin at the observed rates of click and conversion, and at the histogram of delays.

        A delay of d days is seen only where at least d have elapsed: its count is divided by the share
        of clicks of which that is true.
        """
        y, z, d, e = train.labels.unbind(1)
        clicked = y == 1
        for tower, rate in ((self.ctr, y.mean()), (self.cvr, z[clicked].mean())):
            nn.init.constant_(tower[-1].bias, torch.logit(rate.clamp(1e-4, 1 - 1e-4)).item())
        if self.delay is not None:
            count = torch.bincount(d[z == 1].long(), minlength=self.slots)[: self.slots]
            reach = (e[clicked, None] >= torch.arange(self.slots)).float().mean(0)
            shares = count / reach.clamp(min=1e-3)
            self.delay.start_at(shares / shares.sum().clamp(min=1e-9))
        return self

    def towers(self, batch: Batch) -> Predicted:
        """All three heads. Without a delay tower f is all on day 0: S = 0."""
        x = self.embed(batch).flatten(1)
        if self.delay is None:
            delay = x.new_full((len(x), self.slots), NEVER)
            delay[:, 0] = 0
        else:
            delay = self.delay(x)
        return Predicted(self.ctr(x).squeeze(1), self.cvr(x).squeeze(1), delay)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        """Logits of v, the conversion rate of a click."""
        return self.cvr(self.embed(batch).flatten(1)).squeeze(1)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        return self._mean(batch, self.em)

    def _mean(self, batch: Batch, em: bool) -> Float[Tensor, ""]:
        """Over impressions, or over clicks where those alone train."""
        labels = batch.labels
        if self.delay is None:  # an observed conversion is one of day 0
            labels = labels * labels.new_tensor([1, 1, 0, 1])
        found = self.towers(batch)
        nll = negative_log_likelihood(*found, labels, em=em, reduction="none")
        if self.entire:
            return nll.mean()
        nll = nll + F.logsigmoid(found.click)  # p = 1
        clicked = labels[:, 0]
        return (nll * clicked).sum() / clicked.sum().clamp(min=1)

    def configure_optimizers(self):
        adam = torch.optim.Adam(self.parameters(), lr=self.lr)
        steps = self.trainer.estimated_stepping_batches
        falls = torch.optim.lr_scheduler.LambdaLR(adam, lambda k: max(1 - k / steps, 0.0))
        return {"optimizer": adam, "lr_scheduler": {"scheduler": falls, "interval": "step"}}

    def check(self, log: Log) -> None:
        """Refuse labels of another meaning, and parts without a conversion."""
        for part in ("train", "valid"):
            y, z, d, e = getattr(log, part).labels.unbind(1)
            where = f"{log.name}.{part}"
            if not (((y == 0) | (y == 1)) & ((z == 0) | (z == 1))).all():
                raise ValueError(f"{where}: click and observed must be 0 or 1")
            if (z > y).any() or ((d > e) & (z == 1)).any() or (d < 0).any():
                raise ValueError(
                    f"{where}: a conversion needs a click, and 0 <= delay <= days elapsed"
                )
            if (d[z == 1] >= self.slots).any():
                raise ValueError(f"{where}: delays must be below {self.slots} days")
            if not z.any():
                raise ValueError(f"{where} has no observed conversion")

    @torch.no_grad()
    def evaluate(self, log: Log, part: str = "test") -> dict[str, float]:
        """Negative log-likelihood of what was observed, in nats a row (of clicks: without entire)."""
        rows: Split = getattr(log, part)
        total = count = 0.0
        for at in range(0, len(rows), 8192):
            batch = rows.take(slice(at, at + 8192)).to(self.device)
            n = len(batch.labels) if self.entire else batch.labels[:, 0].sum().item()
            total, count = total + self._mean(batch, False).item() * n, count + n
        return {"nll": total / max(count, 1)}

    @torch.no_grad()
    def delays(self, split: Split) -> Float[Tensor, "n slots"]:
        """f of every row, in eval mode. Raises ValueError without a delay tower."""
        if self.delay is None:
            raise ValueError("a model without a delay tower has no f")
        x = self.embed(split.take(slice(None)).to(self.device)).flatten(1)
        return self.delay(x).softmax(1).cpu()
