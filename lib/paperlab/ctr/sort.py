"""SORT, a request-centric ranking transformer (Wang et al., CIKM 2026, arXiv 2603.03988).

A request is the sequence [BOS; H; SEP; C]: a history and N candidates, which share one position and
do not read each other, so that their logits are those of N sequences of one candidate each. The
attention of the history is local, queries far from the candidates are pruned layer by layer, and
the item table comes from a generative pre-training and is frozen.

The paper's description of the gate, the pruning schedule and the pre-training is not complete: the
elementwise sigmoid gate, the linear schedule and the causal next-item model here are
reconstructions. Profile tokens, the mixture of experts, and heads for several tasks are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks, metrics
from ..data.batches import Batches
from ..nn.mlp import linear
from ..nn.transformer import (
    Block,
    MatchHead,
    candidate_mask,
    causal_mask,
    present_positions,
    share_position,
)

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from .worlds.requests import Requests, RequestWorld

FLAGS = 3  # kinds of events: see `worlds.requests`


def kept_queries(
    events: Int[Tensor, "*rows"], layers: int, last: int | None
) -> Int[Tensor, "*rows N"]:
    """Events that each layer still computes: falling linearly to ``last`` in the last layer.

    events: of a history, without padding. layers: N >= 1. last: >= 0; None: no pruning.
    """
    checks.whole(layers=layers)
    checks.whole(0, last=0 if last is None else last)
    excess = torch.zeros_like(events) if last is None else (events - last).clamp(min=0)
    return torch.stack([events - excess * (k + 1) // layers for k in range(layers)], -1)


def token_ratio(length: int, candidates: int) -> float:
    """Tokens of N one-candidate sequences over those of one request: N (L + 3) / (L + 2 + N)."""
    return candidates * (length + 3) / (length + 2 + candidates)


def sampled_softmax(
    states: Float[Tensor, "n D"],
    table: Float[Tensor, "V D"],
    target: Int[Tensor, " n"],
    negatives: Int[Tensor, " m"],
) -> Float[Tensor, ""]:
    """Mean -ln of the target's softmax among itself and shared, uniformly drawn negatives.

    A negative that is the target is left out. With every id as a negative it is the full softmax.
    """
    right = (states * table[target]).sum(1, keepdim=True)
    wrong = states @ table[negatives].T
    wrong = wrong.masked_fill(negatives == target[:, None], -torch.inf)
    return (torch.cat([right, wrong], 1).logsumexp(1) - right.squeeze(1)).mean()


class Tokens(nn.Module):
    """Item and flag of an event to a token: lookup, linear, RMS norm.

    table: item vectors (V, D) to begin with; None: normal ones of deviation .05. freeze: whether
    training leaves them as they are.
    """

    def __init__(self, vocabulary: int, dim: int, table: Tensor | None, freeze: bool):
        super().__init__()
        width = dim if table is None else table.shape[1]
        start = 0.05 * torch.randn(vocabulary, width) if table is None else table.detach().clone()
        if len(start) != vocabulary:
            raise ValueError(f"table must have {vocabulary} rows, got {len(start)}")
        self.items = nn.Embedding.from_pretrained(start, freeze=freeze)
        self.flags = nn.Embedding(FLAGS, dim)
        nn.init.normal_(self.flags.weight, 0, 0.5)
        self.project, self.norm = linear(width, dim), nn.RMSNorm(dim)

    def forward(
        self, items: Int[Tensor, "B T"], flags: Int[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T D"]:
        x = self.norm(self.project(self.items(items)))
        return x if flags is None else x + self.flags(flags)


class _Trained(L.LightningModule):
    """Training of a model on requests: AdamW as in the paper, Lightning's hooks of `loop.fit`."""

    lr = 4e-3
    slow = 1.0  # factor of the item table's rate

    def configure_optimizers(self) -> torch.optim.Optimizer:
        table = self.tokens.items.weight
        rest = [p for p in self.parameters() if p is not table]
        groups = [{"params": rest}, {"params": [table], "lr": self.slow * self.lr}]
        return torch.optim.AdamW(
            groups, lr=self.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )

    def check(self, world: RequestWorld) -> None:
        """Refuse labels that are not 0 or 1."""
        labels = world.train.labels
        if ((labels != 0) & (labels != 1)).any():
            raise ValueError(f"{world.name}.train: labels must be 0 or 1")

    def batches(self, part: Requests, batch_size: int, seed: int) -> Batches:
        return Batches(part, batch_size, seed)

    def count(self, batch: Requests) -> int:
        return len(batch)

    def count_parameters(self) -> dict[str, int]:
        table = self.tokens.items.weight.numel()
        return {"dense": sum(p.numel() for p in self.parameters()) - table, "embedding": table}

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return type(batch)(**{k: v.to(device) for k, v in vars(batch).items()})


class Generative(_Trained):
    """Pre-training (GPSD, arXiv 2506.03699): a causal transformer predicts the next item.

    vocabulary: V, with item 0 for padding. negatives: m >= 1 of the sampled softmax. lr: AdamW's
    rate. Its table, ``tokens.items.weight``, is what is transferred.
    """

    select = ("loss", "lower")

    def __init__(
        self,
        vocabulary: int,
        dim: int = 32,
        layers: int = 1,
        heads: int = 2,
        negatives: int = 256,
        lr: float = 4e-3,
    ):
        checks.whole(layers=layers, negatives=negatives)
        checks.positive(lr=lr)
        super().__init__()
        self.lr, self.negatives, self.vocabulary = lr, negatives, vocabulary
        self.tokens = Tokens(vocabulary, dim, None, freeze=False)
        self.blocks = nn.ModuleList(Block(dim, heads, 2 * dim, qk_norm=True) for _ in range(layers))
        self.norm = nn.RMSNorm(dim)

    def states(self, batch: Requests) -> Float[Tensor, "B L D"]:
        """What each event says of the next one."""
        x, present = self.tokens(batch.items, batch.flags), batch.present
        at = present_positions(present)
        mask = causal_mask(x.shape[1]).to(x.device) & present[:, None]
        for block in self.blocks:
            x, _ = block(x, at, mask)
        return self.norm(x)

    def loss(self, batch: Requests) -> Float[Tensor, ""]:
        """Sampled softmax of every event but the first."""
        there = batch.present[:, :-1]
        drawn = torch.randint(1, self.vocabulary, (self.negatives,), device=there.device)
        states, target = self.states(batch)[:, :-1][there], batch.items[:, 1:][there]
        return sampled_softmax(states, self.tokens.items.weight, target, drawn)

    def training_step(self, batch: Requests, batch_idx: int) -> Float[Tensor, ""]:
        return self.loss(batch)

    @torch.no_grad()
    def evaluate(self, world: RequestWorld, part: str = "valid") -> dict[str, float]:
        """The loss of a part, with negatives of a fixed seed."""
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            return {"loss": self.loss(getattr(world, part).take(slice(2000))).item()}


class SORT(_Trained):
    """One logit a candidate of a request.

    vocabulary: V, item 0 for padding. length: L of the history. dim, heads, layers, hidden (of the
    SwiGLU; the paper's mixture of experts is not here).
    window: events that an event reads, itself included; None: all earlier ones.
    last: history tokens that the last layer still computes; None: all.
    gate, qk_norm, special (BOS and SEP): the paper's components. match: see `MatchHead`.
    table, freeze: item vectors to begin with, and whether they stay. lr: AdamW's rate; that of the
    table is ``slow`` times it.
    Raises ValueError for sizes out of range.
    """

    select = ("auc", "higher")

    def __init__(
        self,
        vocabulary: int,
        length: int,
        dim: int = 32,
        *,
        heads: int = 2,
        layers: int = 1,
        hidden: int = 64,
        window: int | None = None,
        last: int | None = None,
        gate: bool = True,
        qk_norm: bool = True,
        special: bool = True,
        match: bool = True,
        table: Float[Tensor, "V k"] | None = None,
        freeze: bool = False,
        slow: float = 1.0,
        lr: float = 4e-3,
    ):
        checks.whole(vocabulary=vocabulary, length=length, dim=dim, layers=layers)
        checks.positive(slow=slow, lr=lr)
        super().__init__()
        self.lr, self.slow, self.length, self.ends = lr, slow, length, int(special)
        checks.inside(f"[0, {length}]", last=last or 0)
        self.last = last
        self.slots = kept_queries(torch.tensor(length), layers, last).tolist()
        self.tokens = Tokens(vocabulary, dim, table, freeze)
        self.special = nn.Parameter(torch.randn(2, dim)) if special else None  # BOS, SEP
        options = {"qk_norm": qk_norm, "gate": "sigmoid" if gate else None}
        self.blocks = nn.ModuleList(Block(dim, heads, hidden, **options) for _ in range(layers))
        self.norm = nn.RMSNorm(dim)
        self.head = MatchHead(dim, dim, match)
        context = causal_mask(length + 2 * self.ends, window, sinks=self.ends)
        if special:
            context[-1] = True  # SEP stands beside the candidates and reads the whole history
        self.register_buffer("context", context, persistent=False)

    def forward(self, batch: Requests) -> Float[Tensor, "B N"]:
        """Logits of all candidates."""
        past, chosen = self.tokens(batch.items, batch.flags), self.tokens(batch.candidates)
        present = batch.present
        if past.shape[1] != self.length:
            raise ValueError(f"history must have {self.length} events, got {past.shape[1]}")
        if self.special is not None:
            bos, sep = (e.expand(len(past), 1, -1) for e in self.special)
            past = torch.cat([bos, past, sep], 1)
            one = present.new_ones(len(past), 1)
            present = torch.cat([one, present, one], 1)
        x = torch.cat([past, chosen], 1)
        at = share_position(present_positions(present), present, chosen.shape[1])
        mask = candidate_mask(self.context, chosen.shape[1]).to(x.device)
        there = torch.cat([present, present.new_ones(chosen.shape[:2])], 1)
        event = torch.arange(x.shape[1], device=x.device) - self.ends  # place in the history
        kept = kept_queries(batch.present.sum(1), len(self.blocks), self.last)
        for block, slots, own in zip(self.blocks, self.slots, kept.unbind(1), strict=True):
            keep = ((event < 0) | (event >= self.length - slots)).nonzero().squeeze(1)
            x, _ = block(x, at, mask[keep] & there[:, None], keep)
            event, at, mask = event[keep], at[:, keep], mask[keep][:, keep]
            # a row with fewer events than slots keeps fewer: what it drops is never read again
            there = there[:, keep] & ((event < 0) | (event >= self.length - own[:, None]))
        return self.head(self.norm(x[:, -chosen.shape[1] :]), chosen)

    def training_step(self, batch: Requests, batch_idx: int) -> Float[Tensor, ""]:
        return F.binary_cross_entropy_with_logits(self(batch).float(), batch.labels)

    @torch.no_grad()
    def predict(self, part: Requests) -> Float[Tensor, "R N"]:
        """Logits of a part, on the CPU."""
        rows = range(0, len(part), 2048)
        return torch.cat([self(self._here(part.take(slice(k, k + 2048)))).cpu() for k in rows])

    def evaluate(self, world: RequestWorld, part: str = "test") -> dict[str, float]:
        """AUC: on validation of the labels, on the test part in expectation, and within requests."""
        from .worlds.requests import within

        rows: Requests = getattr(world, part)
        score = self.predict(rows)
        if part == "valid":
            return {"auc": metrics.auc(score.flatten(), rows.labels.flatten())}
        auc = metrics.exact_auc(score.flatten(), rows.probability.flatten())
        return {"auc": auc, "gauc": within(score, rows.probability)}

    def _here(self, batch: Requests) -> Requests:
        return self.transfer_batch_to_device(batch, self.device, 0)


def one_at_a_time(batch: Requests) -> Requests:
    """Impression-centric samples: a request of N candidates as N requests of one."""
    n = batch.candidates.shape[1]
    repeated = {k: v.repeat_interleave(n, 0) for k, v in vars(batch).items()}
    for name in ("candidates", "labels", "probability"):
        repeated[name] = getattr(batch, name).reshape(-1, 1)
    return type(batch)(**repeated)
