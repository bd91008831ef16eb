"""AdamW for `paperlab.nn.tables`: lazy or dense, with a global or a per-row step counter.

RecIS's SparseAdamW (arXiv 2509.20883): only rows that were read move, the bias correction counts the
steps of the whole table, and epsilon stands outside the correction, as in TensorFlow. Beside it stand
what it is compared with: dense Adam, which moves every row at every step, and FBGEMM's counter of
each row's own updates (pull requests 3342 and 3558).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .. import checks
from .tables import Table

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def adamw(
    w: Float[Tensor, "r d"],
    m: Float[Tensor, "r d"],
    v: Float[Tensor, "r d"],
    gradient: Float[Tensor, "r d"],
    t: Int[Tensor, "#r 1"],
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    shrink: float = 1.0,
) -> tuple[Float[Tensor, "r d"], Float[Tensor, "r d"], Float[Tensor, "r d"]]:
    """New weights and moments after step t >= 1; ``shrink`` multiplies the old weights (rho).

    m <- b1 m + (1 - b1) g,  v <- b2 v + (1 - b2) g^2,
    w <- rho w - lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps)
    """
    m = betas[0] * m + (1 - betas[0]) * gradient
    v = betas[1] * v + (1 - betas[1]) * gradient.square()
    size = lr * (1 - betas[1] ** t.double()).sqrt() / (1 - betas[0] ** t.double())
    return shrink * w - size.to(w.dtype) * m / (v.sqrt() + eps), m, v


class TableAdam(torch.optim.AdamW):
    """AdamW over a module: dense weights by torch's, its `Table`s by `adamw`.

    lazy: whether only rows that were read move. False is dense Adam: all rows move by their
        momentum, for as long as it lasts.
    counter: "global" (the table's steps) or "row" (each row's own updates; lazy only).
    reduce: of the occurrences of a row in a batch, see `Table.gradients`.
    weight_decay: >= 0, of rows that move. decay: "adamw", rho = 1 - lr * weight_decay, or "tf",
        rho = 1 - weight_decay, as RecIS's SparseAdamWTF. Dense weights do not decay.
    Raises ValueError for values out of range and for a per-row counter of dense updates.
    """

    def __init__(
        self,
        module: nn.Module,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        lazy: bool = True,
        counter: str = "global",
        reduce: str = "sum",
        weight_decay: float = 0.0,
        decay: str = "adamw",
    ):
        checks.positive(lr=lr, eps=eps)
        checks.inside("[0, 1)", weight_decay=weight_decay)
        checks.one_of(("global", "row"), counter=counter)
        checks.one_of(("adamw", "tf"), decay=decay)
        checks.one_of(("sum", "mean"), reduce=reduce)
        if counter == "row" and not lazy:
            raise ValueError("a counter of each row's updates needs lazy updates")
        dense = [{"params": [*module.parameters()]}]  # which may be empty
        super().__init__(dense, lr=lr, betas=betas, eps=eps, weight_decay=0.0)
        self.tables = [m for m in module.modules() if isinstance(m, Table)]
        self.lazy, self.counter, self.reduce = lazy, counter, reduce
        self.table_decay, self.decay = weight_decay, decay

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for table in self.tables:
            table.forget()

    @torch.no_grad()
    def step(self, closure=None):
        loss = super().step(closure)
        for table in self.tables:
            self._step(table)
        return loss

    def _step(self, table: Table) -> None:
        group = self.param_groups[0]
        rows, gradient = table.gradients(self.reduce)
        if not self.lazy:
            every = torch.zeros_like(table.weight[: len(table)])
            every[rows] = gradient
            rows, gradient = slice(0, len(table)), every
        table.updates[rows] += 1
        t = table.updates[rows][:, None] if self.counter == "row" else table.step + 1
        shrink = 1 - self.table_decay * (group["lr"] if self.decay == "adamw" else 1)
        how = {k: group[k] for k in ("lr", "betas", "eps")} | {"shrink": shrink}
        slots = (table.weight, table.exp_avg, table.exp_avg_sq)
        new = adamw(*(slot[rows] for slot in slots), gradient, t, **how)
        for slot, values in zip(slots, new, strict=True):
            slot[rows] = values
        table.advance()
