"""ELBO_TDS: Zhu et al., "A Probabilistic Framework for Temporal Distribution Generalization in
Industry-Scale Recommender Systems", 2025 (arXiv 2511.21032).

    x^(k) = augmentation of the fields, k = 1..K                         1. feature-wise resampling
    mu = W x + b,  z^(k) = mu(x^(k)) + eps,  eps ~ N(0, I)                2. encoder, variance fixed
    xhat^(k) = W_d z^(k) + b_d                                            3. decoder
    L_ssl = 1/(K B) sum_b [sum_k |xhat^(k) - x|^2 + sum_k |z^(k) - mean_k z|^2]      4. a tower's loss
    logit = <MLP_u(mu(x_u)), MLP_i(mu(x_i))>, from the input without augmentation    5. prediction
    L = BCE(logit, y) + alpha (L_ssl^user + L_ssl^item) / 2               6. total

With q(z^(k)|x^(k)) = N(mu, I), p(x|z) = N(xhat, I/2) and copies that share one latent c,
p(z^(1..K)|c) = prod_k N(c, I/2), maximised over c, L_ssl is the negative ELBO but for constants: our
derivation, since the paper's was not available. Model, losses and augmentation follow the released
code and its figure. They differ in step 4: the figure reconstructs the input before augmentation
(the default here, as a constant), the code the augmented one, with gradients into the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks
from ..data.schema import Schema
from ..data.store import Batch
from ..nn.click import ClickModel
from ..nn.mlp import MLP, linear

if TYPE_CHECKING:
    from jaxtyping import Float, Int

REACH = 2  # buckets that a statistic may move by


def jitter(
    ids: Int[Tensor, "*rows F"], sizes: Int[Tensor, " F"], p: float
) -> Int[Tensor, "*rows F"]:
    """Step 1 for statistics: each bucket moves, with probability p, by one of -2..2, in 1..size-1.

    sizes: ids of each field, out-of-vocabulary (0) included; id 0 stays. Draws from torch's global
    generator.
    """
    move = torch.randint(-REACH, REACH + 1, ids.shape, device=ids.device, dtype=ids.dtype)
    move = move * (torch.rand(ids.shape, device=ids.device) < p)
    moved = torch.minimum((ids + move).clamp(min=1), sizes.to(ids.dtype) - 1)
    return torch.where(ids > 0, moved, ids)


def dropped(x: Float[Tensor, "*rows F dim"], p: float) -> Float[Tensor, "*rows F dim"]:
    """Step 1 for other fields: with probability p a field vector goes through dropout at rate p."""
    hit = torch.rand(x.shape[:-1], device=x.device) < p
    return torch.where(hit[..., None], F.dropout(x, p), x)


def reconstruction(
    decoded: Float[Tensor, "K B D"], target: Float[Tensor, "*K B D"]
) -> Float[Tensor, ""]:
    """1/(K B) sum over copies and rows of |decoded - target|^2, the first term of step 4."""
    return (decoded - target).square().sum(-1).mean()


def prior(z: Float[Tensor, "K B d"]) -> Float[Tensor, ""]:
    """1/(K B) sum over copies and rows of |z^(k) - mean_k z|^2, the second term of step 4.

    0 for one copy, and where all copies agree.
    """
    return (z - z.mean(0)).square().sum(-1).mean()


class Tower(nn.Module):
    """One side: encoder (2), decoder (3) and predictor. ``latent`` 0 leaves the encoder out (ERM).

    d_in: width D of the fields, end to end. latent: d_z. widths: of the predictor, LeakyReLU after
    each, the last included.
    """

    def __init__(self, d_in: int, latent: int, widths: Sequence[int]):
        super().__init__()
        self.encode = linear(d_in, latent) if latent else nn.Identity()
        self.decode = linear(latent, d_in) if latent else None
        self.predict = MLP(latent or d_in, widths, activation=nn.LeakyReLU)

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B out"]:
        return self.predict(self.encode(x))

    def self_supervised(
        self,
        copies: Float[Tensor, "K B D"],
        target: Float[Tensor, "*K B D"],
        terms: tuple[bool, bool] = (True, True),
    ) -> Float[Tensor, ""]:
        """Step 4. terms: whether reconstruction, and prior, count."""
        mean = self.encode(copies)
        z = mean + torch.randn_like(mean)
        loss = reconstruction(self.decode(z), target) if terms[0] else z.new_zeros(())
        return loss + prior(z) if terms[1] else loss


class ELBOTDS(ClickModel):
    """Two towers with a self-supervised loss on augmented copies of their fields.

    users: names of the fields of the user's tower; the others are the item's.
    statistics: names of the fields whose ids are ordered buckets: they are moved, the others dropped.
    latent: d_z, 0 for no encoder (the released ERM baseline), which needs alpha 0.
    widths: of the predictors. copies: K. p: of the augmentation, in [0, 1].
    alpha: weight of step 4, >= 0, to be rescaled with the width of the input; 0 is the twin without
        the method.
    augment: whether the prediction is trained on an augmented input too (not the paper's).
    target: what is reconstructed: the ``input``, or the ``copy`` (released code).
    terms: whether reconstruction, and prior, count: ``(False, True)`` is the ablation.
    dim, options: see `ClickModel`.
    Raises ValueError for values out of range, unknown fields, and a side without a field.
    """

    def __init__(
        self,
        schema: Schema,
        dim: int = 16,
        *,
        users: Sequence[str],
        statistics: Sequence[str] = (),
        latent: int = 256,
        widths: Sequence[int] = (128, 64, 32),
        copies: int = 4,
        p: float = 0.2,
        alpha: float = 0.01,
        augment: bool = False,
        target: Literal["input", "copy"] = "input",
        terms: tuple[bool, bool] = (True, True),
        **options,
    ):
        checks.whole(copies=copies)
        checks.whole(0, latent=latent)
        checks.widths(widths=widths)
        checks.inside("[0, 1]", p=p)
        checks.at_least(0, alpha=alpha)
        checks.one_of(("input", "copy"), target=target)
        if alpha and not latent:
            raise ValueError("alpha must be 0 without an encoder (latent=0)")
        names = [f.name for f in schema.fields]
        for name in (*users, *statistics):
            checks.one_of(names, field=name)
        if not 0 < len(set(users)) < len(names):
            raise ValueError("users must name some fields, and leave some to the item")
        super().__init__(schema, dim, **options)
        self.copies, self.p, self.alpha, self.augment = copies, p, alpha, augment
        self.target, self.terms = target, terms
        ordered = [f.name in statistics for f in schema.categorical]
        sizes = [f.size for f in schema.categorical]
        of_user = torch.tensor([name in users for name in names])
        self.register_buffer("ordered", torch.tensor(ordered), persistent=False)
        self.register_buffer("sizes", torch.tensor(sizes), persistent=False)
        self.dropping = [k for k, name in enumerate(names) if name not in statistics]
        self.sides = tuple(side.nonzero().flatten() for side in (of_user, ~of_user))
        self.towers = nn.ModuleList(Tower(len(s) * dim, latent, widths) for s in self.sides)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        return self._score(self.embed(batch))

    def _score(self, fields: Float[Tensor, "B F dim"]) -> Float[Tensor, " B"]:
        u, v = (t(x) for t, x in zip(self.towers, self.split(fields), strict=True))
        return (u * v).sum(1)  # step 5

    def split(self, fields: Float[Tensor, "*K B F dim"]) -> list[Float[Tensor, "*K B D"]]:
        """The inputs of the user's and of the item's tower: their fields, end to end."""
        return [fields.index_select(-2, side).flatten(-2) for side in self.sides]

    def latents(self, batch: Batch) -> tuple[Float[Tensor, "B d"], Float[Tensor, "B d"]]:
        """mu of users and items."""
        x = self.split(self.embed(batch))
        return tuple(t.encode(side) for t, side in zip(self.towers, x, strict=True))

    def resample(self, batch: Batch, copies: int) -> Float[Tensor, "K B F dim"]:
        """Step 1: field vectors of augmented copies."""
        ids = batch.ids.repeat(copies, 1)
        ids = torch.where(self.ordered, jitter(ids, self.sizes, self.p), ids)
        rest = {"history": batch.history, "elapsed": batch.elapsed}
        rest = {
            k: v if v is None else v.repeat(copies, *[1] * (v.ndim - 1)) for k, v in rest.items()
        }
        many = Batch(ids, batch.numeric.repeat(copies, 1), batch.labels.repeat(copies, 1), **rest)
        x = self.embed(many)
        if self.dropping:
            other = dropped(x[:, self.dropping], self.p)
            x = x.index_copy(1, torch.tensor(self.dropping, device=x.device), other)
        return x.unflatten(0, (copies, -1))

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Step 6."""
        seen = self.resample(batch, 1)[0] if self.augment else self.embed(batch)
        loss = F.binary_cross_entropy_with_logits(self._score(seen).float(), batch.labels[:, 0])
        if not self.alpha:
            return loss
        many = self.split(self.resample(batch, self.copies))
        plain = self.split((self.embed(batch) if self.augment else seen).detach())
        targets = plain if self.target == "input" else many
        own = [
            tower.self_supervised(copies, target, self.terms)
            for tower, copies, target in zip(self.towers, many, targets, strict=True)
        ]
        return loss + self.alpha * (own[0] + own[1]) / 2
