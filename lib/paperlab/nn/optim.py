"""Adam that reads and writes only the table rows of a batch, and yet equals dense Adam.

Dense Adam moves every row of an embedding table at every step, also rows without a gradient: their
first moment m fades by beta1 and keeps pushing. Libraries either pay for that (a pass over the whole
table a step) or drop it (SparseAdam, a different algorithm). Here a row remembers the step of its
last update; when it is next read it first catches up on the k steps it slept through,

    w <- w - m / (sqrt(v) + eps') * sum_{j=1..k} lr_s r^j c_s,      s = last + j,
    m <- beta1^k m,  v <- beta2^k v,
    r = beta1 / sqrt(beta2),  c_s = sqrt(1 - beta2^s) / (1 - beta1^s),

which is dense Adam, except that eps' = eps sqrt(1 - beta2^(last + 1)) is held at its value in the
first step slept. The sum depends on ``last`` alone: one number a past step serves all rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks
from .embedding import FeatureEmbedding

# Steps after which a sleeping row has stopped moving: r^256 < 1e-11 at Adam's usual betas.
MEMORY = 256


class RowAdam(torch.optim.Optimizer):
    """Adam over a module: dense weights through torch's fused kernel, sparse tables by row.

    lr > 0; 0 <= beta1 < sqrt(beta2) < 1; eps > 0. There is no weight decay: it touches every row.
    Raises ValueError for values out of range.
    """

    def __init__(
        self,
        module: nn.Module,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ):
        checks.positive(lr=lr, eps=eps)
        if not 0 <= betas[0] < betas[1] ** 0.5 < 1:
            raise ValueError(f"betas must satisfy 0 <= beta1 < sqrt(beta2) < 1, got {betas}")
        embeds = [m for m in module.modules() if isinstance(m, FeatureEmbedding) and m.sparse]
        tables = [e.table.weight for e in embeds]
        inside = {id(t) for t in tables}
        dense = [p for p in module.parameters() if p.requires_grad and id(p) not in inside]
        groups = [{"params": p, "rows": r} for p, r in ((dense, False), (tables, True)) if p]
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps})
        self._read: dict[Tensor, _Rows] = {}
        for embed in embeds:
            embed.lookup = self._lookup
            embed.register_state_dict_pre_hook(lambda *_: self.settle())

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if group["rows"]:
                for table in params:
                    self._step_rows(table, group)
            elif params:
                self._step_dense(params, group)
        return loss

    def _step_dense(self, params: list[Tensor], group: dict) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p] = {"step": torch.zeros((), device=p.device), **_moments(p)}
        states = [self.state[p] for p in params]
        for s in states:
            s["step"] += 1
        _adam(params, [p.grad for p in params], states, group)

    @torch.no_grad()
    def settle(self) -> None:
        """Bring every row of every table up to date, as dense Adam would have it now."""
        for group in self.param_groups:
            for table in group["params"] if group["rows"] else []:
                state = self.state[table]
                if "settled" in state and state["settled"] < state["step"]:  # else loaded: settled
                    last = state["last"]
                    asleep = (last < int(state["step"])).logical_and_(last >= 0)
                    for rows in asleep.nonzero().flatten().split(65_536):  # what a cache can hold
                        self._write(table, self._awake(table, rows, group))
                    state["settled"] = state["step"].clone()

    def state_dict(self) -> dict:
        """Adam's usual state; rows are settled first, so nothing else needs saving."""
        self.settle()
        saved = super().state_dict()
        for state in saved["state"].values():
            for key in ("last", "sums", "settled"):
                state.pop(key, None)
        return saved

    # rows of a sparse table ----------------------------------------------------------------------

    def _rows_state(self, table: Tensor) -> dict:
        state = self.state[table]
        if not state:
            state.update(step=torch.zeros(()), **_moments(table))
        if "last" not in state:  # a new table, or one loaded from a settled checkpoint
            state["step"] = state["step"].cpu()
            now, device = int(state["step"]), table.device
            state["settled"] = state["step"].clone()
            # -1: never read, so nothing to catch up on
            state["last"] = torch.full((len(table),), now or -1, dtype=torch.int32, device=device)
            state["sums"] = torch.zeros(now + 4 * MEMORY, device=device)
        return state

    def _lookup(self, table: Tensor, ids: Tensor) -> Tensor:
        """Rows of a table as dense Adam would have them now; remembers them for the step."""
        if not torch.is_grad_enabled():
            self.settle()
            return F.embedding(ids, table)
        self._rows_state(table)
        with torch.no_grad():
            distinct = _distinct(ids.flatten())
            group = next(g for g in self.param_groups if any(p is table for p in g["params"]))
            self._read[table] = read = self._awake(table, distinct[0], group)
        return _Gather.apply(table, read.weight, *distinct).view(*ids.shape, -1)

    def _awake(self, table: Tensor, rows: Tensor, group: dict) -> _Rows:
        """Copies of rows and their moments, caught up with the steps that they slept through."""
        state, (beta1, beta2) = self.state[table], group["betas"]
        w, m, v = (t.index_select(0, rows) for t in (table, state["exp_avg"], state["exp_avg_sq"]))
        last = state["last"].index_select(0, rows).clamp_(min=0)
        slept = (state["step"].item() - last)[:, None]
        eps = group["eps"] * (1 - beta2 ** (last + 1.0)).sqrt_()[:, None]
        moved = m * state["sums"].index_select(0, last)[:, None]
        w.addcdiv_(moved, v.sqrt().add_(eps), value=-1)
        return _Rows(rows, w, m.mul_(beta1**slept), v.mul_(beta2**slept))

    def _write(self, table: Tensor, new: _Rows) -> None:
        state = self.state[table]
        for target, rows in (
            (table, new.weight),
            (state["exp_avg"], new.exp_avg),
            (state["exp_avg_sq"], new.exp_avg_sq),
        ):
            target.index_copy_(0, new.rows, rows)
        state["last"][new.rows] = int(state["step"])

    def _step_rows(self, table: Tensor, group: dict) -> None:
        if not table.grad.is_sparse:
            raise ValueError("RowAdam: a sparse table got a dense gradient")
        state = self._rows_state(table)
        ids, total = table.grad._indices()[0], table.grad._values()
        mine = self._read.pop(table, None)
        if mine is None or not torch.equal(mine.rows, ids):  # several reads, or other processes'
            rows, _, order, starts = _distinct(ids)
            total = F.embedding_bag(order, total, starts, mode="sum")
            mine = self._awake(table, rows, group)
        state["step"] += 1
        moments = {"exp_avg": mine.exp_avg, "exp_avg_sq": mine.exp_avg_sq}
        step = state["step"].to(table.device)
        _adam([mine.weight], [total], [{"step": step, **moments}], group)
        self._write(table, mine)
        self._extend_sums(state, group)

    def _extend_sums(self, state: dict, group: dict) -> None:
        """sums[s]: what rows last updated at step s have moved since, per unit of m / sqrt(v)."""
        now, (beta1, beta2) = int(state["step"]), group["betas"]
        if now >= len(state["sums"]):
            state["sums"] = torch.cat([state["sums"], torch.zeros_like(state["sums"])])
        c = group["lr"] * (1 - beta2**now) ** 0.5 / (1 - beta1**now)
        first = max(0, now - MEMORY)
        age = torch.arange(now - first, 0, -1, device=state["sums"].device)
        state["sums"][first:now] += c * (beta1 / beta2**0.5) ** age


class _Rows(NamedTuple):
    """Distinct rows of a table, taken out to be worked on."""

    rows: Tensor
    weight: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor


class _Gather(torch.autograd.Function):
    """Rows by place among the distinct ones; the gradient holds each distinct row once."""

    @staticmethod
    def forward(ctx, table, distinct, rows, place, order, starts):
        ctx.save_for_backward(rows, order, starts)
        ctx.shape = table.shape
        return F.embedding(place, distinct)

    @staticmethod
    def backward(ctx, grad):
        rows, order, starts = ctx.saved_tensors
        total = F.embedding_bag(order, grad.contiguous(), starts, mode="sum")
        grad = torch.sparse_coo_tensor(rows[None], total, ctx.shape, check_invariants=False)
        return grad, None, None, None, None, None


def _distinct(ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Distinct ids in order; the place of each id among them; where equal ids stand.

    ``order[starts[k]:starts[k + 1]]`` are the positions of the k-th distinct id: an embedding bag
    over them sums gradients without a scatter.
    """
    ids, order = ids.int().sort()
    new = torch.ones_like(ids, dtype=torch.bool)
    torch.ne(ids[1:], ids[:-1], out=new[1:])
    starts = new.nonzero().flatten()
    place = torch.empty_like(ids).scatter_(0, order, new.cumsum(0, dtype=torch.int32) - 1)
    return ids.index_select(0, starts).long(), place, order, starts


def _moments(p: Tensor) -> dict[str, Tensor]:
    return {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}


def _adam(params: list[Tensor], grads: list[Tensor], states: list[dict], group: dict) -> None:
    """Torch's fused Adam kernel, in place on weights and moments; ``step`` counts this one."""
    beta1, beta2 = group["betas"]
    torch._fused_adam_(
        params,
        grads,
        [s["exp_avg"] for s in states],
        [s["exp_avg_sq"] for s in states],
        [],
        [s["step"] for s in states],
        lr=group["lr"],
        beta1=beta1,
        beta2=beta2,
        weight_decay=0.0,
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
    )
