"""FiBiNET: Huang, Zhang and Zhang, "FiBiNET: Combining Feature Importance and Bilinear feature
Interaction for Click-Through Rate Prediction", RecSys 2019."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from ... import checks
from ...data.schema import Schema
from ...data.store import Batch
from ...nn.mlp import MLP, linear
from .fm import FM, first_order

if TYPE_CHECKING:
    from jaxtyping import Float

BILINEAR = ("all", "each", "interaction")


class SENET(nn.Module):
    """a_f e_f: every field's vector times its importance, a = ReLU(W_2 ReLU(W_1 z)).

    z_f is the mean of e_f's d numbers (squeeze); W_1 goes from F to max(1, F // reduction) fields,
    W_2 back, both without bias (excitation).
    """

    def __init__(self, fields: int, reduction: int):
        super().__init__()
        hidden = max(1, fields // reduction)
        self.W1, self.W2 = linear(fields, hidden, bias=False), linear(hidden, fields, bias=False)

    def forward(self, e: Float[Tensor, "B F d"]) -> Float[Tensor, "B F d"]:
        a = self.W2(self.W1(e.mean(2)).relu()).relu()
        return e * a[:, :, None]


class BilinearInteraction(nn.Module):
    """p_ij = (e_i W) * e_j for all pairs of fields i < j, in the order 01, 02, ..., 12, ...

    kind: one W (d, d) for ``all`` pairs, one for ``each`` left field i (F - 1 of them: the last
        field is never on the left), or one for every pair (``interaction``).
    ``weight`` (number of W, d, d) is Xavier normal matrix by matrix.
    """

    def __init__(self, fields: int, dim: int, kind: Literal["all", "each", "interaction"]):
        super().__init__()
        i, j = torch.triu_indices(fields, fields, 1)
        for name, at in (("left", i), ("right", j)):
            self.register_buffer(name, at, persistent=False)
        self.kind = kind
        count = {"all": 1, "each": fields - 1, "interaction": len(i)}[kind]
        self.weight = nn.Parameter(torch.empty(count, dim, dim))
        for w in self.weight:
            nn.init.xavier_normal_(w)

    def forward(self, e: Float[Tensor, "B F d"]) -> Float[Tensor, "B P d"]:
        by_field = e.transpose(0, 1)
        if self.kind == "interaction":
            turned = by_field.index_select(0, self.left) @ self.weight
        else:  # one W for all is broadcast over the fields
            turned = (by_field[:-1] @ self.weight).index_select(0, self.left)
        return (turned * by_field.index_select(0, self.right)).transpose(0, 1)


class FiBiNET(FM):
    """b + sum_f w_f + MLP([p; q]), p the bilinear pairs of e, q those of SENET's a_f e_f.

    kind: see `BilinearInteraction`; p and q have weights of their own, as in BARS. reduction: see
        `SENET`, >= 1; the paper uses 3. widths, dropout, batch_norm: see `MLP`.
    w and e are FM's, columns of one table. options: see `ClickModel`.
    Raises ValueError for an unknown kind, reduction < 1 and a schema of one field.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        kind: Literal["all", "each", "interaction"] = "interaction",
        reduction: int = 3,
        widths: Sequence[int] = (400, 400, 400),
        dropout: float = 0.0,
        batch_norm: bool = False,
        **options,
    ):
        checks.one_of(BILINEAR, kind=kind)
        checks.whole(reduction=reduction)
        checks.whole(2, fields=len(schema.fields))
        super().__init__(schema, dim, **options)
        self.senet = SENET(self.n_fields, reduction)
        self.plain = BilinearInteraction(self.n_fields, dim, kind)
        self.weighed = BilinearInteraction(self.n_fields, dim, kind)
        d_in = 2 * dim * len(self.plain.left)
        self.mlp = MLP(d_in, widths, out=1, dropout=dropout, batch_norm=batch_norm)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        w, e = first_order(self.embed(batch))
        pairs = torch.cat([self.plain(e), self.weighed(self.senet(e))], 1)
        return self.bias + w + self.mlp(pairs.flatten(1)).squeeze(1)
