"""Adam that reads and writes only the table rows of a batch, and yet equals dense Adam (ours).

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

import torch
from torch import Tensor, nn

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
        if lr <= 0 or eps <= 0 or not 0 <= betas[0] < betas[1] ** 0.5 < 1:
            raise ValueError(f"RowAdam: out of range: lr={lr}, betas={betas}, eps={eps}")
        embeds = [m for m in module.modules() if isinstance(m, FeatureEmbedding) and m.sparse]
        tables = [e.table.weight for e in embeds]
        inside = {id(t) for t in tables}
        dense = [p for p in module.parameters() if p.requires_grad and id(p) not in inside]
        groups = [{"params": p, "rows": r} for p, r in ((dense, False), (tables, True)) if p]
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps})
        self._read: tuple[Tensor, Tensor, Tensor] | None = None
        for embed in embeds:
            embed.register_forward_pre_hook(self._wake)
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
                if self.state[table]:
                    self._catch_up(table, torch.arange(len(table), device=table.device), group)

    def state_dict(self) -> dict:
        """Adam's usual state; rows are settled first, so nothing else needs saving."""
        self.settle()
        saved = super().state_dict()
        for state in saved["state"].values():
            for key in ("last", "sums", "scratch"):
                state.pop(key, None)
        return saved

    # rows of a sparse table ----------------------------------------------------------------------

    def _rows_state(self, table: Tensor) -> dict:
        state = self.state[table]
        if not state:
            state.update(step=torch.zeros(()), **_moments(table))
        if "last" not in state:  # a new table, or one loaded from a settled checkpoint
            now, device = int(state["step"]), table.device
            state["step"] = state["step"].cpu()
            state["last"] = torch.full((len(table),), now, dtype=torch.int32, device=device)
            state["scratch"] = torch.zeros(len(table), dtype=torch.int32, device=device)
            state["sums"] = torch.zeros(now + 4 * MEMORY, device=device)
        return state

    def _wake(self, embed: FeatureEmbedding, args: tuple) -> None:
        """Before rows are read, bring them up to date."""
        table = embed.table.weight
        if not torch.is_grad_enabled():
            self.settle()
            return
        group = next(g for g in self.param_groups if any(p is table for p in g["params"]))
        with torch.no_grad():
            self._rows_state(table)
            ids = embed.row_ids(args[0]).flatten()
            rows, place = self._distinct(table, ids)
            self._read = (ids, rows, place)
            self._catch_up(table, rows, group)

    def _distinct(self, table: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Distinct ids, and for every id its place among them; on a CPU without a sort."""
        if ids.is_cuda:
            return torch.unique(ids, return_inverse=True)
        scratch = self.state[table]["scratch"]
        place = torch.arange(len(ids), dtype=torch.int32)
        scratch[ids] = place  # of equal ids one wins, any one
        distinct = ids[scratch[ids] == place]
        scratch[distinct] = place[: len(distinct)]
        return distinct, scratch[ids]

    def _catch_up(self, table: Tensor, rows: Tensor, group: dict) -> None:
        state = self.state[table]
        now, last = int(state["step"]), state["last"][rows]
        behind = last < now
        if not behind.any():
            return
        rows, last = rows[behind], last[behind]
        beta1, beta2 = group["betas"]
        m, v = state["exp_avg"][rows], state["exp_avg_sq"][rows]
        slept = (now - last)[:, None].float()
        eps = group["eps"] * (1 - beta2 ** (last + 1.0)).sqrt()
        table[rows] -= m / (v.sqrt() + eps[:, None]) * state["sums"][last][:, None]
        state["exp_avg"][rows] = m.mul_(beta1**slept)
        state["exp_avg_sq"][rows] = v.mul_(beta2**slept)
        state["last"][rows] = now

    def _step_rows(self, table: Tensor, group: dict) -> None:
        if not table.grad.is_sparse:
            raise ValueError("RowAdam: a sparse table got a dense gradient")
        state, grad = self._rows_state(table), table.grad
        ids, values = grad._indices()[0], grad._values()
        if self._read is not None and torch.equal(self._read[0], ids):
            rows, place = self._read[1:]
        else:  # rows that other processes read arrive here
            rows, place = self._distinct(table, ids)
            self._catch_up(table, rows, group)
        total = torch.zeros(len(rows), table.shape[1], device=table.device)
        total.index_add_(0, place, values)

        state["step"] += 1
        now = int(state["step"])
        w = table[rows]
        mine = {"step": state["step"].to(table.device)}
        mine |= {k: state[k][rows] for k in ("exp_avg", "exp_avg_sq")}
        _adam([w], [total], [mine], group)
        table[rows] = w
        for key in ("exp_avg", "exp_avg_sq"):
            state[key][rows] = mine[key]
        state["last"][rows] = now
        self._extend_sums(state, now, group)

    def _extend_sums(self, state: dict, now: int, group: dict) -> None:
        """sums[s]: what rows last updated at step s have moved since, per unit of m / sqrt(v)."""
        if now >= len(state["sums"]):
            state["sums"] = torch.cat([state["sums"], torch.zeros_like(state["sums"])])
        beta1, beta2 = group["betas"]
        c = group["lr"] * (1 - beta2**now) ** 0.5 / (1 - beta1**now)
        first = max(0, now - MEMORY)
        age = torch.arange(now - first, 0, -1, device=state["sums"].device)
        state["sums"][first:now] += c * (beta1 / beta2**0.5) ** age


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
