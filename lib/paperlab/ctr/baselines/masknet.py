"""MaskNet: Wang et al., "MaskNet: Introducing Feature-Wise Multiplication to CTR Ranking Models by
Instance-Guided Mask", DLP-KDD 2021, as BARS defines it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ... import checks
from ...data.schema import Schema
from ...data.store import Batch
from ...nn.click import ClickModel
from ...nn.grouped import GroupedLayerNorm
from ...nn.mlp import MLP, linear

if TYPE_CHECKING:
    from jaxtyping import Float

KINDS = ("serial", "parallel")


class MaskBlock(nn.Module):
    """v' = ReLU(LN(W (m * v))), m = W_2 ReLU(W_1 e + b_1) + b_2; W without bias (Eqs. 3, 5-7).

    The mask m reads all field vectors e and has the width of v; its hidden layer has
    ``ratio`` x that width. dropout: on v', a probability in [0, 1).
    options: see `ClickModel`.
    """

    def __init__(self, d_mask: int, d_in: int, d_out: int, ratio: float, dropout: float):
        super().__init__()
        self.mask = MLP(d_mask, (max(1, int(ratio * d_in)),), out=d_in)
        self.W = linear(d_in, d_out, bias=False)
        self.norm = nn.LayerNorm(d_out)
        self.dropout = dropout

    def forward(self, e: Float[Tensor, "B D"], v: Float[Tensor, "B n"]) -> Float[Tensor, "B m"]:
        v = self.norm(self.W(self.mask(e) * v)).relu()
        return F.dropout(v, self.dropout, self.training) if self.dropout else v


class MaskNet(ClickModel):
    """Mask blocks in a chain or side by side; the first v is LN(e), field by field.

    kind: ``serial`` is a chain of blocks of ``widths``, then a Linear; ``parallel`` is ``blocks``
        blocks of ``block_width`` units on LN(e), end to end into an MLP of ``widths``.
    ratio: hidden units of a mask for each unit that it masks, > 0.
    dropout: after every block and hidden layer, a probability in [0, 1).
    options: see `ClickModel`.
    The mask reads e before its LayerNorm, as the released code and BARS have it; that LayerNorm is
    always on here (FuxiCTR: optional).
    Raises ValueError for an unknown kind, a ratio of 0 or less, no block.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        kind: Literal["serial", "parallel"] = "serial",
        widths: Sequence[int] = (400, 400, 400),
        ratio: float = 1.0,
        blocks: int = 1,
        block_width: int = 64,
        dropout: float = 0.0,
        **options,
    ):
        checks.one_of(KINDS, kind=kind)
        checks.positive(ratio=ratio)
        checks.whole(blocks=blocks, block_width=block_width)
        checks.inside("[0, 1)", dropout=dropout)
        serial = kind == "serial"
        checks.widths(not serial, widths=widths)
        super().__init__(schema, dim, **options)
        self.kind = kind
        self.norm = GroupedLayerNorm(self.n_fields, dim)
        ins = (self.d_in, *widths[:-1]) if serial else (self.d_in,) * blocks
        outs = widths if serial else (block_width,) * blocks
        self.blocks = nn.ModuleList(
            MaskBlock(self.d_in, n, m, ratio, dropout) for n, m in zip(ins, outs, strict=True)
        )
        self.head = (
            linear(widths[-1], 1)
            if serial
            else MLP(blocks * block_width, widths, out=1, dropout=dropout)
        )

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        fields = self.embed(batch)
        e = fields.flatten(1)
        v = self.norm(fields.transpose(0, 1)).transpose(0, 1).flatten(1)
        if self.kind == "parallel":
            return self.head(torch.cat([block(e, v) for block in self.blocks], 1)).squeeze(1)
        for block in self.blocks:
            v = block(e, v)
        return self.head(v).squeeze(1)
