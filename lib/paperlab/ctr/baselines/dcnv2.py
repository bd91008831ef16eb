"""DCNv2: Wang et al., "DCN V2: Improved Deep & Cross Network", WWW 2021, as BARS runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from ... import checks
from ...data.schema import Schema
from ...data.store import Batch
from ...nn.click import ClickModel
from ...nn.mlp import MLP, linear

if TYPE_CHECKING:
    from jaxtyping import Float

STRUCTURES = ("crossnet_only", "stacked", "parallel")


class CrossNet(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) + x_l, with W_l (D, D) (Eq. 1)."""

    def __init__(self, d_in: int, crosses: int):
        super().__init__()
        self.layers = nn.ModuleList(linear(d_in, d_in) for _ in range(crosses))

    def forward(self, x0: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        x = x0
        for layer in self.layers:
            x = x0 * layer(x) + x
        return x


class CrossNetMix(nn.Module):
    """The mixture of K low-rank crosses of rank r (Eqs. 3-4).

    E_k = x_0 * (U_k tanh(C_k tanh(V_k^T x_l)) + b_l),  x_{l+1} = sum_k pi_k E_k + x_l,
    pi = softmax over experts of w_k^T x_l, the gates w shared by the layers.
    """

    def __init__(self, d_in: int, crosses: int, rank: int, experts: int):
        super().__init__()
        self.shape = (experts, rank)
        self.gate = linear(d_in, experts, bias=False)
        self.V = nn.ParameterList(_xavier(experts, rank, d_in) for _ in range(crosses))
        self.C = nn.ParameterList(_xavier(experts, rank, rank) for _ in range(crosses))
        self.U = nn.ParameterList(_xavier(experts, rank, d_in) for _ in range(crosses))
        self.b = nn.ParameterList(torch.zeros(d_in) for _ in range(crosses))

    def forward(self, x0: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        x = x0
        for V, C, U, b in zip(self.V, self.C, self.U, self.b, strict=True):
            h = (x @ V.flatten(0, 1).t()).unflatten(1, self.shape).tanh()
            h = torch.einsum("bks,krs->bkr", h, C).tanh()
            h = h * self.gate(x).softmax(1)[:, :, None]
            # The gates sum to 1, so that sum_k pi_k (U_k h_k + b) is one product over all k and r.
            x = x0 * (h.flatten(1) @ U.flatten(0, 1) + b) + x
        return x


class DCNv2(ClickModel):
    """Explicit crosses beside, below or without an MLP.

    structure: ``parallel`` is a Linear on [x_L; MLP(x_0)], ``stacked`` an MLP on x_L,
        ``crossnet_only`` a Linear on x_L (no MLP: ``widths`` and what follows are not used).
    crosses: layers L >= 1. rank: None for full matrices, else the rank r >= 1 of ``experts`` K >= 1
        low-rank experts (the paper's DCN-Mix; r = 32, K = 4 in BARS).
    widths, dropout, batch_norm: see `MLP`. options: see `ClickModel`.
    Raises ValueError for an unknown structure or a number out of range.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        structure: Literal["crossnet_only", "stacked", "parallel"] = "parallel",
        crosses: int = 3,
        rank: int | None = None,
        experts: int = 4,
        widths: Sequence[int] = (400, 400, 400),
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options,
    ):
        checks.one_of(STRUCTURES, structure=structure)
        checks.whole(crosses=crosses, experts=experts, rank=1 if rank is None else rank)
        super().__init__(schema, dim, **options)
        self.structure = structure
        self.cross = (
            CrossNet(self.d_in, crosses)
            if rank is None
            else CrossNetMix(self.d_in, crosses, rank, experts)
        )
        if structure == "crossnet_only":
            self.head = linear(self.d_in, 1)
        elif structure == "stacked":
            self.head = MLP(self.d_in, widths, out=1, dropout=dropout, batch_norm=batch_norm)
        else:
            self.mlp = MLP(self.d_in, widths, dropout=dropout, batch_norm=batch_norm)
            self.head = linear(self.d_in + self.mlp.d_out, 1)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        x0 = self.embed(batch).flatten(1)
        x = self.cross(x0)
        if self.structure == "parallel":
            x = torch.cat([x, self.mlp(x0)], 1)
        return self.head(x).squeeze(1)


def _xavier(experts: int, rows: int, columns: int) -> nn.Parameter:
    weight = torch.empty(experts, rows, columns)
    for w in weight:
        nn.init.xavier_normal_(w)
    return nn.Parameter(weight)
