"""MLCC: Yu et al., "Compress, Cross and Scale: Multi-Level Compression Cross Networks for Efficient
Scaling in Recommender Systems", 2026 (arXiv 2602.12041), after its abstract and released module.

The weights of H small networks are generated from each sample (global compressor, GC). These networks
cross every field's embedding (progressive layered crossing, PLC). One linear map per field compresses
the result (local compressor, LC), and squeeze and excitation (SE) weighs the fields. With several
channels (MC-MLCC) the embedding is cut into parts, each with its own GC and PLC.

Not in the released code: the options ``norm``, ``static``, ``shared`` and ``layers``; the order of
columns (level by level, then head by head: a permutation of the released one); linear layers that
start Xavier normal like everywhere in this library (released: uniform of the same variance), the LC
field by field, on a field's own fans; embeddings that start N(0, 0.01²) (released: Xavier over the
whole table, which for a million rows leaves products of two embeddings near 1e-5 and of three near
1e-8).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks
from ..data.schema import Schema
from ..data.store import Batch
from ..nn.click import ClickModel
from ..nn.mlp import MLP, linear
from .baselines.dnn import DNN
from .baselines.lr import LR

if TYPE_CHECKING:
    from jaxtyping import Float

Activation = Callable[[Tensor], Tensor]
PHI: dict[str, Activation | None] = {
    "identity": None,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def cross(
    x: Float[Tensor, "C B F E"],
    thetas: Sequence[Float[Tensor, "C b H _ _"]],
    keep: Sequence[int] = (),
    phi: Activation | None = None,
) -> Float[Tensor, "C B F K"]:
    """Progressive layered crossing (step 2): U_0 = X, U_j = phi(U_{j-1} Theta_j), for every head.

    thetas: Theta_1..Theta_D, d_in by d_out each, of every sample (b = B) or shared by all (b = 1).
    keep: levels j < D whose U_j are kept; U_D always is. K = H (d_D + sum of kept d_j): kept levels
    ascending, then the last; inside a level head by head.
    phi: between levels, not after the last; None is the identity. Then the products associate,
    U_j = X (Theta_1 .. Theta_j), and all levels of all heads are one product with X:
    fewer and larger products, not always fewer operations.
    """
    if phi is None:
        rows = [thetas[0].mT]  # transposed, so that heads lie one below the other without a copy
        for theta in thetas[1:]:
            rows.append(theta.mT @ rows[-1])
        chosen = [w.flatten(2, 3) for w in _kept(rows, keep)]  # (C, B, H d_j, E)
        return x @ torch.cat(chosen, 2).mT
    levels = [x[:, :, None] @ thetas[0]]
    for theta in thetas[1:]:
        levels[-1] = phi(levels[-1])  # what is kept of a level is what the next one reads
        levels.append(levels[-1] @ theta)
    return torch.cat([u.transpose(2, 3).flatten(3) for u in _kept(levels, keep)], 3)


def _kept(levels: list[Tensor], keep: Sequence[int]) -> list[Tensor]:
    return [levels[j - 1] for j in sorted(keep)] + [levels[-1]]


class SqueezeExcite(nn.Module):
    """Weighs fields (step 5): R_f <- a_f R_f, a = sigmoid(B_2 LN_0(ReLU(B_1 s + b_1)) + b_2).

    s: a field's mean over its coordinates; hidden width F // 2; LN_0 has no weights.
    """

    def __init__(self, fields: int):
        super().__init__()
        self.squeeze, self.excite = linear(fields, fields // 2), linear(fields // 2, fields)

    def forward(self, r: Float[Tensor, "B F e"]) -> Float[Tensor, "B F e"]:
        hidden = self.squeeze(r.mean(2)).relu()
        hidden = F.layer_norm(hidden, hidden.shape[-1:])
        return r * self.excite(hidden).sigmoid()[:, :, None]


class MLCCBlock(nn.Module):
    """Steps 1 to 5: F field vectors of C channels of width E, to F vectors of width E'.

    num_fields: F >= 2. emb: E >= 1. heads: H >= 1. dims: d_1..d_D, each >= 1; the order of the
    crosses is D + 1 in the embeddings. keep: levels in 1..D-1 kept beside the last.
    emb_out: E' >= 1. channels: C >= 1. raw: whether the LC sees the embeddings too.
    phi: ``identity`` (released), ``relu``, ``tanh`` or ``sigmoid`` between levels.
    se: squeeze and excitation at the end.
    static: Theta are learned constants, the same for all samples: nothing is crossed.
    shared: one LC for all fields. norm: the GC reads LayerNorm(x), without weights,
    of every field and channel, so that Theta starts at order 1 however small embeddings start.
    Raises ValueError for numbers out of range and an unknown phi.
    """

    def __init__(
        self,
        num_fields: int,
        emb: int,
        *,
        heads: int = 4,
        dims: Sequence[int] = (4, 1),
        keep: Sequence[int] = (1,),
        emb_out: int = 8,
        channels: int = 1,
        raw: bool = True,
        phi: Literal["identity", "relu", "tanh", "sigmoid"] = "identity",
        se: bool = True,
        static: bool = False,
        shared: bool = False,
        norm: bool = False,
    ):
        super().__init__()
        _check(num_fields, emb, heads, dims, keep, emb_out, channels, phi)
        self.channels, self.keep, self.raw, self.norm = channels, tuple(keep), raw, norm
        self.phi = PHI[phi]
        widths = (emb, *dims)
        self.shapes = [(heads, a, b) for a, b in pairwise(widths)]
        self.W1, self.thetas = None, None
        if static:
            self.thetas = nn.ParameterList(_xavier(channels, 1, *s) for s in self.shapes)
        else:  # (C, F E, H M), no bias: columns Theta_1, Theta_2, .., each (H, d_out, d_in)
            self.W1 = _xavier(channels, num_fields * emb, sum(map(prod, self.shapes)))
        kept = dims[-1] + sum(dims[j - 1] for j in keep)
        self.d_cross = channels * heads * kept
        d_z = self.d_cross + raw * channels * emb
        self.W2 = _xavier(1 if shared else num_fields, d_z, emb_out)
        self.excite = SqueezeExcite(num_fields) if se else None

    def generate(self, x: Float[Tensor, "C B F E"]) -> list[Float[Tensor, "C b H _ _"]]:
        """Global compressor (step 1): each sample's Theta_1..Theta_D."""
        if self.thetas is not None:
            return list(self.thetas)
        if self.norm:
            x = F.layer_norm(x, x.shape[-1:])
        columns = torch.bmm(x.flatten(2), self.W1).split([prod(s) for s in self.shapes], 2)
        return [
            g.unflatten(2, (h, b, a)).mT for g, (h, a, b) in zip(columns, self.shapes, strict=True)
        ]

    def forward(self, x: Float[Tensor, "B F CE"]) -> Float[Tensor, "B F e"]:
        apart = x.unflatten(2, (self.channels, -1)).permute(2, 0, 1, 3).contiguous()  # step 0
        u = cross(apart, self.generate(apart), self.keep, self.phi)
        z = u.permute(2, 1, 0, 3).flatten(2)  # (F, B, K) side by side: step 3
        if self.raw:
            z = torch.cat([z, x.transpose(0, 1)], 2)
        r = (z @ self.W2).transpose(0, 1)  # step 4
        return self.excite(r) if self.excite is not None else r


class MLCC(ClickModel):
    """Embeddings, one `MLCCBlock` (or ``layers`` of them), and an MLP on what it gives (step 6).

    dim: width of a field's vector over all channels (C E), a multiple of ``channels``; MC-MLCC is
    ``channels`` > 1. layers >= 1: all blocks but the last give C E coordinates, the next
    one's input, so that orders multiply. widths, dropout: the head, see `MLP`; without widths it is
    linear. options: see `ClickModel`. Everything else: see
    `MLCCBlock`.

    Precision: bf16 keeps float32's exponents, so that the small products of young embeddings survive
    under ``bf16-mixed`` (rounded to 3 digits); they do not under float16.
    Raises ValueError for numbers out of range and an unknown phi.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        heads: int = 4,
        dims: Sequence[int] = (4, 1),
        keep: Sequence[int] = (1,),
        emb_out: int = 8,
        channels: int = 1,
        raw: bool = True,
        phi: Literal["identity", "relu", "tanh", "sigmoid"] = "identity",
        se: bool = True,
        static: bool = False,
        shared: bool = False,
        norm: bool = False,
        layers: int = 1,
        widths: Sequence[int] = (256, 128, 64, 32),
        dropout: float = 0.2,
        **options,
    ):
        checks.whole(layers=layers)
        if channels < 1 or dim % channels:
            raise ValueError(f"channels must divide dim, got {channels} channels of dim {dim}")
        super().__init__(schema, dim, **options)
        block = {"heads": heads, "dims": dims, "keep": keep, "channels": channels, "raw": raw}
        block |= {"phi": phi, "se": se, "static": static, "shared": shared, "norm": norm}
        emb = dim // channels
        self.blocks = nn.Sequential(
            *(
                MLCCBlock(self.n_fields, emb, emb_out=width, **block)
                for width in (*[dim] * (layers - 1), emb_out)
            )
        )
        self.head = MLP(self.n_fields * emb_out, widths, out=1, dropout=dropout)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        return self.head(self.blocks(self.embed(batch)).flatten(1)).squeeze(1)


def _xavier(*shape: int) -> nn.Parameter:
    """Xavier normal, every matrix of the last two dimensions on its own fans."""
    std = (2 / (shape[-2] + shape[-1])) ** 0.5
    return nn.Parameter(torch.empty(shape).normal_(0, std))


def _check(num_fields, emb, heads, dims, keep, emb_out, channels, phi) -> None:
    checks.whole(2, num_fields=num_fields)
    checks.whole(emb=emb, heads=heads, emb_out=emb_out, channels=channels)
    checks.widths(dims=dims)
    if len(set(keep)) < len(keep) or not set(keep) <= set(range(1, len(dims))):
        raise ValueError(f"keep must name levels in 1..{len(dims) - 1}, each once, got {keep}")
    checks.one_of(PHI, phi=phi)


def contenders() -> dict[str, Callable[[Schema, int | None], ClickModel]]:
    """Models that `paperlab.tryout` compares: MC-MLCC (two channels), MLCC (one), a plain network, LR."""

    def mlcc(channels: int):
        more = {"heads": 2, "channels": channels, "dropout": 0.0}
        return lambda schema, width: MLCC(schema, 16, widths=(width, width), **more)

    return {
        "MC-MLCC": mlcc(2),
        "MLCC": mlcc(1),
        "DNN": lambda schema, width: DNN(schema, 16, widths=(width, width)),
        "LR": lambda schema, width: LR(schema),
    }
