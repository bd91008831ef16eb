"""FinalMLP: Mao et al., "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction", AAAI 2023.

Two plain MLPs read the same fields, each through its own gate, and a bilinear form joins their
outputs (arXiv 2304.00902). A gate without context fields is a learned constant here. The released
code puts a hidden layer before that constant, which never gets a gradient because its context vector
and biases start at zero; ``init_ctx_std`` above 0 (not in the paper) makes that layer trainable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks
from ..data.schema import Schema
from ..data.store import Batch
from ..nn.click import ClickModel
from ..nn.embedding import FeatureEmbedding
from ..nn.mlp import MLP, linear
from .baselines.dnn import DNN
from .baselines.lr import LR

if TYPE_CHECKING:
    from jaxtyping import Float


def bilinear(
    o1: Float[Tensor, "B d1"], o2: Float[Tensor, "B d2"], W: Float[Tensor, "k h1 h2"]
) -> Float[Tensor, " B"]:
    """sum_j o1_j^T W_j o2_j over k contiguous chunks o1_j (h1 = d1 / k) and o2_j (h2 = d2 / k)."""
    k, h1, h2 = W.shape
    right = torch.einsum("bkj,kij->bki", o2.unflatten(1, (k, h2)), W)
    return (o1.unflatten(1, (k, h1)) * right).sum((1, 2))


class BilinearFusion(nn.Module):
    """logit = b + w_1^T o_1 + w_2^T o_2 + sum_j o_{1,j}^T W_j o_{2,j}.

    heads: k, which divides both widths: 1 is the full form, k = d1 = d2 a weighted element-wise
        product; 0 leaves the form out (DualMLP).
    As in the released code each stream has its own bias, and W starts Xavier normal as a matrix
    (k h1 h2, 1): standard deviation sqrt(2 / (1 + d1 d2 / k)).
    Raises ValueError when heads does not divide both widths.
    """

    def __init__(self, d1: int, d2: int, heads: int):
        super().__init__()
        checks.whole(0, heads=heads)
        if heads and (d1 % heads or d2 % heads):
            raise ValueError(f"heads must be 0 or divide both widths, {d1} and {d2}, got {heads}")
        self.w1, self.w2 = linear(d1, 1), linear(d2, 1)
        self.W = None
        if heads:
            self.W = nn.Parameter(torch.empty(heads, d1 // heads, d2 // heads))
            nn.init.normal_(self.W, 0, (2 / (1 + self.W.numel())) ** 0.5)

    def forward(self, o1: Float[Tensor, "B d1"], o2: Float[Tensor, "B d2"]) -> Float[Tensor, " B"]:
        return self.terms(o1, o2).sum(1)

    def terms(self, o1: Float[Tensor, "B d1"], o2: Float[Tensor, "B d2"]) -> Float[Tensor, "B t"]:
        """The summands of the logit: stream 1, stream 2 and, with heads, the bilinear form."""
        terms = [self.w1(o1).squeeze(1), self.w2(o2).squeeze(1)]
        if self.W is not None:
            terms.append(bilinear(o1, o2, self.W))
        return torch.stack(terms, 1)


class FeatureGate(nn.Module):
    """Gate g = 2 sigma(MLP(c)) in (0, 2): one number per coordinate of the flattened fields.

    fields: names of the context fields; c is their embedding, from tables of the gate's own. Without
        fields g = 2 sigma(b) for all rows, b learned from 0 (what the released code's gate comes
        to), or, with init_ctx_std > 0, c is a learned vector that starts as N(0, init_ctx_std^2).
    dim: width of a context field's vector and of that vector. d_out: coordinates to gate.
    hidden: units of MLP = Linear, ReLU, Linear, with neither normalisation nor dropout.
    sparse, std: of the tables, see `FeatureEmbedding`.
    Raises ValueError for unknown or sequence fields, and for an init_ctx_std that is negative, or
    above 0 beside context fields.
    """

    def __init__(
        self,
        schema: Schema,
        fields: Sequence[str],
        dim: int,
        d_out: int,
        hidden: int = 400,
        sparse: bool = True,
        std: float = 0.01,
        init_ctx_std: float = 0.0,
    ):
        super().__init__()
        single = [f for f in schema.fields if f.kind != "sequence"]
        unknown = sorted(set(fields) - {f.name for f in single})
        if unknown:
            known = ", ".join(f.name for f in single)
            raise ValueError(f"contexts: {', '.join(unknown)} not among the single fields: {known}")
        if init_ctx_std < 0 or (init_ctx_std and fields):
            raise ValueError(
                f"init_ctx_std must be 0, or above 0 without context fields, got {init_ctx_std}"
            )
        self.embed = self.context = self.mlp = self.bias = None
        if fields:
            context = Schema(tuple(f for f in single if f.name in fields), schema.labels)
            # A context of numeric fields only has no row to read, so none to read sparsely.
            self.embed = FeatureEmbedding(context, dim, sparse and bool(context.categorical), std)
            self.ids = [k for k, f in enumerate(schema.categorical) if f.name in fields]
            self.numeric = [k for k, f in enumerate(schema.numeric) if f.name in fields]
        elif init_ctx_std:
            self.context = nn.Parameter(init_ctx_std * torch.randn(1, dim))
        if fields or init_ctx_std:
            self.mlp = MLP(dim * max(1, len(set(fields))), (hidden,), out=d_out)
        else:
            self.bias = nn.Parameter(torch.zeros(1, d_out))

    def forward(self, batch: Batch) -> Float[Tensor, "b d_out"]:
        """Gates of every row, or one row (b = 1) where there is no context field."""
        if self.mlp is None:
            return 2 * self.bias.sigmoid()
        context = self.context
        if self.embed is not None:
            own = Batch(batch.ids[:, self.ids], batch.numeric[:, self.numeric], batch.labels)
            context = self.embed(own).flatten(1)
        return 2 * self.mlp(context).sigmoid()


class DualMLP(ClickModel):
    """logit = b + w_1^T MLP_1(e) + w_2^T MLP_2(e): two streams, added. The paper's baseline.

    widths: hidden units of stream 1 and of stream 2, no layer fewer than one each; every layer is
        Linear, BatchNorm, ReLU, Dropout, also the last. dropout: a probability a stream.
    options: see `ClickModel`.
    Raises ValueError for other than two streams, or an empty one.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        widths: Sequence[Sequence[int]] = ((400, 400, 400), (400, 400, 400)),
        dropout: Sequence[float] = (0.0, 0.0),
        batch_norm: bool = True,
        **options,
    ):
        if len(widths) != 2 or len(dropout) != 2 or not all(widths):
            raise ValueError(
                f"widths and dropout must have two streams, none empty, got {widths} and {dropout}"
            )
        super().__init__(schema, dim, **options)
        self.streams = nn.ModuleList(
            MLP(self.d_in, w, dropout=p, batch_norm=batch_norm)
            for w, p in zip(widths, dropout, strict=True)
        )
        self.fusion = self.fuse(0)

    def fuse(self, heads: int) -> BilinearFusion:
        return BilinearFusion(self.streams[0].d_out, self.streams[1].d_out, heads)

    def inputs(self, batch: Batch) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        """Inputs of the two streams, h_1 and h_2."""
        e = self.embed(batch).flatten(1)
        return e, e

    def outputs(self, batch: Batch) -> tuple[Float[Tensor, "B d1"], Float[Tensor, "B d2"]]:
        """Outputs of the two streams, o_1 and o_2."""
        h1, h2 = self.inputs(batch)
        return self.streams[0](h1), self.streams[1](h2)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        return self.fusion(*self.outputs(batch))


class TwoMLPs(DualMLP):
    """DualMLP's two streams as an ensemble (a control): a table and a loss each, mean of logits.

    The loss is the sum of the two streams' losses, so that neither learns from the other. What they
    share is the order of rows, the learning rate and the check whose weights are kept.
    Arguments: those of `DualMLP`; embedding_l2 counts both tables.
    """

    def __init__(self, schema: Schema, dim: int = 16, **options):
        super().__init__(schema, dim, **options)
        self.other = FeatureEmbedding(schema, dim, sparse=self.embed.sparse, std=self.std)

    def inputs(self, batch: Batch) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        return self.embed(batch).flatten(1), self.other(batch).flatten(1)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        return self.fusion.terms(*self.outputs(batch)).mean(1)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        logits = self.fusion.terms(*self.outputs(batch)).float()
        loss = sum(
            F.binary_cross_entropy_with_logits(logits[:, s], batch.labels[:, 0]) for s in (0, 1)
        )
        if self.embedding_l2:
            for embed in (self.embed, self.other):
                loss = loss + self.embedding_l2 / 2 * embed.table.weight.square().sum()
        return loss


class FinalMLP(DualMLP):
    """DualMLP with a gate before each stream and a bilinear form after them.

    heads: k of `BilinearFusion`; 0 leaves the form out. gates: False leaves the gates out.
    contexts: names of the context fields of stream 1 and of stream 2, each may be empty; the paper
        means user fields for one and item fields for the other. gate_hidden, init_ctx_std: see
        `FeatureGate`; init_ctx_std is for the gates without context fields.
    options: see `ClickModel`; embedding_l2 counts the gates' tables too.
    Raises ValueError for contexts without gates and an init_ctx_std that no gate uses.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        widths: Sequence[Sequence[int]] = ((400, 400, 400), (400, 400, 400)),
        dropout: Sequence[float] = (0.0, 0.0),
        heads: int = 1,
        gates: bool = True,
        contexts: Sequence[Sequence[str]] = ((), ()),
        gate_hidden: int = 400,
        init_ctx_std: float = 0.0,
        batch_norm: bool = True,
        **options,
    ):
        if len(contexts) != 2 or (not gates and any(contexts)):
            raise ValueError(
                f"contexts must be two lists of fields, empty without gates, got {contexts}"
            )
        if init_ctx_std and (not gates or all(contexts)):
            raise ValueError(f"init_ctx_std is for gates without context, got {init_ctx_std}")
        super().__init__(
            schema, dim, widths=widths, dropout=dropout, batch_norm=batch_norm,
            **options,
        )  # fmt: skip
        self.fusion = self.fuse(heads)
        self.gates = nn.ModuleList(
            FeatureGate(
                schema, fields, dim, self.d_in, gate_hidden,
                sparse=self.embed.sparse, std=self.std,
                init_ctx_std=0.0 if fields else init_ctx_std,
            )
            for fields in (contexts if gates else ())
        )  # fmt: skip

    def inputs(self, batch: Batch) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        e = self.embed(batch).flatten(1)
        return tuple(gate(batch) * e for gate in self.gates) if self.gates else (e, e)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        loss = super().loss(batch)
        if self.embedding_l2:
            for gate in self.gates:
                if gate.embed is not None:
                    loss = loss + self.embedding_l2 / 2 * gate.embed.table.weight.square().sum()
        return loss


def contenders() -> dict[str, Callable[[Schema, int | None], ClickModel]]:
    """Models that `paperlab.tryout` compares: FinalMLP (gates without context), its parts, MLP, LR."""
    heads = 4

    def streams(model: type[DualMLP], **more):
        def build(schema: Schema, width: int) -> DualMLP:
            last = -(-width // heads) * heads  # heads divide it
            return model(schema, widths=((width, last), (last,)), **more)

        return build

    return {
        "FinalMLP": streams(FinalMLP, heads=heads, gate_hidden=32),
        "DualMLP": streams(DualMLP),
        "two MLPs": streams(TwoMLPs),
        "MLP": lambda schema, width: DNN(schema, widths=(width, width), batch_norm=True),
        "LR": lambda schema, width: LR(schema),
    }
