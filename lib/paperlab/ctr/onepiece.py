"""OnePiece, a cascade ranker with block-wise latent reasoning (Dai et al. 2025, arXiv 2509.18091).

A request is one sequence of tokens: interaction history (IH), preference anchors of the query (PA),
descriptors of user and query (SD), and in ranking the C candidates (CIS), without positions. A
bidirectional transformer encodes it. Its last M rows are the block Z_0. Reasoning step k, supervised
by one task from dense to sparse (click, cart, order), runs the same layers on the block again:

    Z_k = backbone(Z_{k-1} + E[k]), which reads the base tokens and the blocks 1 to k

Not in the paper, and chosen here: sizes, optimiser, temperature, RMS norms and SwiGLU in place of
LayerNorm and a plain feed-forward (`nn.transformer.Block`), no dropout. Losses are means, not sums.
Ranking is trained; the losses of retrieval are functions only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks, metrics
from ..data.batches import Batches
from ..nn.mlp import MLP, linear
from ..nn.transformer import Block, candidate_mask
from .worlds.groups import TASKS, within

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from .worlds.groups import Groups, GroupWorld


def base_mask(context: int, block: int, see: bool) -> Bool[Tensor, "n n"]:
    """Who reads whom among context tokens, then candidates: all read all (the paper).

    Without ``see`` a candidate reads the context and itself, and the context reads no candidate.
    """
    if see:
        return torch.ones(context + block, context + block, dtype=torch.bool)
    return candidate_mask(torch.ones(context, context, dtype=torch.bool), block)


def step_mask(context: int, block: int, blocks: int, see: bool) -> Bool[Tensor, "M n"]:
    """What the rows of the newest block read: the context, then ``blocks`` >= 1 blocks, its own last.

    Without ``see`` row i reads row i of every block alone.
    """
    checks.whole(blocks=blocks)
    rows = torch.ones(block, block, dtype=torch.bool) if see else torch.eye(block, dtype=torch.bool)
    return torch.cat([torch.ones(block, context, dtype=torch.bool), rows.repeat(1, blocks)], 1)


def attention_pairs(length: int, block: int, steps: int = 0, layers: int = 1) -> int:
    """Pairs of query and key, keys cached: layers * (N^2 + sum over k of M (N + k M)).

    length: N, all base tokens. block: M.
    """
    checks.whole(0, steps=steps)
    more = sum(block * (length + k * block) for k in range(1, steps + 1))
    return layers * (length**2 + more)


def set_contrastive(
    scores: Float[Tensor, "B C"], labels: Float[Tensor, "B C"], temperature: float
) -> Float[Tensor, ""]:
    """Mean over positives of -ln softmax of their score over the group; 0 without positives.

    A constant that is added to all scores of a group changes nothing. 0 for groups of one.
    """
    chosen = labels * (scores / temperature).log_softmax(1)
    return -chosen.sum() / labels.sum().clamp(min=1)


def ranking_loss(
    scores: Float[Tensor, "B C"], labels: Float[Tensor, "B C"], temperature: float | None
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the candidates plus `set_contrastive`; None leaves the latter out."""
    loss = F.binary_cross_entropy_with_logits(scores, labels)
    return loss if temperature is None else loss + set_contrastive(scores, labels, temperature)


def user_to_item(
    users: Float[Tensor, "B D"],
    items: Float[Tensor, "B J D"],
    labels: Float[Tensor, "B J"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Mean over positive items of -ln of their softmax among themselves and the user's negatives."""
    score = torch.einsum("bd,bjd->bj", users, items) / temperature
    negatives = score.masked_fill(labels == 1, -torch.inf).logsumexp(1, keepdim=True)
    loss = torch.logaddexp(score, negatives) - score
    return (loss * labels).sum() / labels.sum().clamp(min=1)


def item_to_user(
    users: Float[Tensor, "B D"],
    items: Float[Tensor, "B J D"],
    labels: Float[Tensor, "B J"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Mean over positive items of -ln of their user's softmax among the batch; 0 for a batch of 1."""
    score = torch.einsum("ad,bjd->bja", users, items) / temperature
    own = score.diagonal(dim1=0, dim2=2).T  # (B, J): item j of user b with user b
    return ((score.logsumexp(2) - own) * labels).sum() / labels.sum().clamp(min=1)


def retrieval_loss(
    users: Float[Tensor, "B D"],
    items: Float[Tensor, "B J D"],
    labels: Float[Tensor, "B J"],
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """A retrieval step's loss: cross-entropy of inner products, user to item, and item to user."""
    score = torch.einsum("bd,bjd->bj", users, items)
    both = (f(users, items, labels, temperature) for f in (user_to_item, item_to_user))
    return F.binary_cross_entropy_with_logits(score, labels) + sum(both)


class Tokens(nn.Module):
    """A request's tokens in the order IH, PA, SD, CIS; an example of requests gives the sizes."""

    def __init__(self, example: Groups, dim: int):
        super().__init__()
        item, (many, width) = example.candidates.shape[2], example.described.shape[1:]
        project = lambda d: MLP(d, [dim], dim, activation=nn.GELU)  # noqa: E731
        place = lambda n: nn.Parameter(0.02 * torch.randn(n, dim))  # noqa: E731
        self.shared, self.candidate = project(item), project(item)
        self.described = nn.ModuleList(project(width) for _ in range(many))
        self.history_place, self.described_place = place(example.history.shape[1]), place(many)
        self.anchor_place, self.ends = place(example.anchors.shape[2]), place(2)  # BOS, EOS

    def forward(self, batch: Groups) -> Float[Tensor, "B N D"]:
        history = self.shared(batch.history) + self.history_place
        anchors = self.shared(batch.anchors) + self.anchor_place  # one order in every group
        bos, eos = (e.expand(*anchors.shape[:2], 1, -1) for e in self.ends)
        anchors = torch.cat([bos, anchors, eos], 2).flatten(1, 2)
        said = [f(batch.described[:, s]) for s, f in enumerate(self.described)]
        described = torch.stack(said, 1) + self.described_place
        return torch.cat([history, anchors, described, self.candidate(batch.candidates)], 1)


class Reasoner(nn.Module):
    """The backbone and its steps: tokens to the states Z_0, ..., Z_K of their last M rows.

    see: whether the rows of a block read each other (and the context reads them).
    plain: a weight-tied loop instead, without step embeddings and earlier blocks.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        layers: int,
        steps: int,
        *,
        see: bool = True,
        plain: bool = False,
    ):
        checks.whole(layers=layers)
        checks.whole(0, steps=steps)
        super().__init__()
        self.layers = nn.ModuleList(Block(dim, heads, 2 * dim, rope=False) for _ in range(layers))
        self.see, self.steps = see, steps
        self.place = None if plain else nn.Parameter(0.02 * torch.randn(steps, dim))

    def forward(self, x: Float[Tensor, "B N D"], block: int) -> list[Float[Tensor, "B M D"]]:
        n, at = x.shape[1], torch.zeros(1, x.shape[1], dtype=torch.long, device=x.device)
        last, cached = torch.arange(n - block, n, device=x.device), []
        mask = base_mask(n - block, block, self.see)[None].to(x.device)
        for layer in self.layers:  # of the last layer's outputs, only the block's are read
            ends = layer is self.layers[-1]
            x, cache = layer(x, at, mask[:, last] if ends else mask, last if ends else None)
            cached.append(cache)
        states = [x]
        for k in range(self.steps):
            z = states[-1] if self.place is None else states[-1] + self.place[k]
            blocks = 2 if self.place is None else k + 2
            mask = step_mask(n - block, block, blocks, self.see)[None].to(x.device)
            grown = []
            for layer, cache in zip(self.layers, cached, strict=True):
                z, cache = layer(z, at, mask, cache=cache)
                grown.append(cache)
            cached = cached if self.place is None else grown
            states.append(z)
        return states


class OnePiece(L.LightningModule):
    """Logits of a group's candidates, for as many tasks as ``at`` names.

    example: requests whose sizes are the model's.
    at: for each task the step that it is read from and that it supervises: (1, 2, 3) is the paper's
        progressive supervision, (3, 3, 3) all tasks at the last step, (0,) one task, no reasoning.
    see, plain: of `Reasoner`. temperature: of the set-contrastive loss; None leaves it out. lr: Adam's.
    Raises ValueError for sizes out of range.
    """

    select = ("auc", "higher")

    def __init__(
        self,
        example: Groups,
        dim: int = 32,
        *,
        heads: int = 4,
        layers: int = 2,
        at: Sequence[int] = (0,),
        see: bool = True,
        plain: bool = False,
        temperature: float | None = 0.1,
        lr: float = 3e-3,
    ):
        checks.whole(dim=dim, tasks=len(at))
        for step in at:
            checks.whole(0, at=step)
        if len(at) > example.labels.shape[2]:
            raise ValueError(f"at must name at most {example.labels.shape[2]} tasks, got {len(at)}")
        checks.positive(temperature=1.0 if temperature is None else temperature, lr=lr)
        super().__init__()
        self.at, self.temperature, self.lr = tuple(at), temperature, lr
        self.tokens = Tokens(example, dim)
        self.reasoner = Reasoner(dim, heads, layers, max(at), see=see, plain=plain)
        head = lambda: nn.Sequential(  # noqa: E731
            nn.RMSNorm(dim), linear(dim, dim), nn.GELU(), linear(dim, 1)
        )
        self.heads = nn.ModuleList(head() for _ in at)

    def forward(self, batch: Groups) -> Float[Tensor, "B C K"]:
        states = self.reasoner(self.tokens(batch), batch.candidates.shape[1])
        return torch.cat([f(states[k]) for f, k in zip(self.heads, self.at, strict=True)], 2)

    def losses(self, batch: Groups) -> list[Float[Tensor, ""]]:
        """`ranking_loss` of each task."""
        scores, labels = self(batch).float().unbind(2), batch.labels.unbind(2)
        return [ranking_loss(s, y, self.temperature) for s, y in zip(scores, labels, strict=False)]

    def training_step(self, batch: Groups, batch_idx: int) -> Float[Tensor, ""]:
        return sum(self.losses(batch)) / len(self.at)

    def configure_optimizers(self):
        """Adam, its rate falling to 0 over the run."""
        adam = torch.optim.Adam(self.parameters(), lr=self.lr, fused=True)
        steps = self.trainer.estimated_stepping_batches
        falls = torch.optim.lr_scheduler.LambdaLR(adam, lambda k: max(1 - k / steps, 0.0))
        return {"optimizer": adam, "lr_scheduler": {"scheduler": falls, "interval": "step"}}

    def check(self, world: GroupWorld) -> None:
        """Refuse labels that are not 0 or 1."""
        labels = world.train.labels
        if ((labels != 0) & (labels != 1)).any():
            raise ValueError(f"{world.name}.train: labels must be 0 or 1")

    def batches(self, part: Groups, batch_size: int, seed: int) -> Batches:
        return Batches(part, batch_size, seed)

    def count(self, batch: Groups) -> int:
        return len(batch)

    def count_parameters(self) -> dict[str, int]:
        return {"dense": sum(p.numel() for p in self.parameters()), "embedding": 0}

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return type(batch)(**{k: v.to(device) for k, v in vars(batch).items()})

    @torch.no_grad()
    def predict(self, part: Groups) -> Float[Tensor, "G C K"]:
        """Logits of a part, on the CPU."""
        rows = (part.take(slice(k, k + 1024)) for k in range(0, len(part), 1024))
        return torch.cat(
            [self(self.transfer_batch_to_device(r, self.device, 0)).cpu() for r in rows]
        )

    def evaluate(self, world: GroupWorld, part: str = "test") -> dict[str, float]:
        """Validation: the tasks' mean pooled AUC of labels. Test: both AUCs of probabilities."""
        rows: Groups = getattr(world, part)
        scores, found = self.predict(rows).unbind(2), {}
        if part == "valid":
            pairs = zip(scores, rows.labels.unbind(2), strict=False)
            found = [metrics.auc(s.flatten(), y.flatten()) for s, y in pairs]
            return {"auc": sum(found) / len(found)}
        for task, s, p in zip(TASKS, scores, rows.probability.unbind(2), strict=False):
            found[f"{task} pooled"] = metrics.exact_auc(s.flatten(), p.flatten())
            found[f"{task} within"] = within(s, p)
        return found


def gradient_cosine(model: OnePiece, batch: Groups) -> Float[Tensor, "K K"]:
    """Cosines of the tasks' gradients in the weights that all tasks share: tokens and backbone."""
    shared = [*model.tokens.parameters(), *model.reasoner.parameters()]
    flat = []
    for loss in model.losses(batch):
        found = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        pairs = zip(found, shared, strict=True)
        flat.append(
            torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])
        )
    unit = F.normalize(torch.stack(flat), dim=1)
    return unit @ unit.T
