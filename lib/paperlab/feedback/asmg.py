"""ASMG: Peng, Pan, Zhang, Zeng, "Learning an Adaptive Meta Model-Generator for Incrementally Updating
Recommender Systems", RecSys 2021 (arXiv 2111.04282).

A base model is fine-tuned period by period; its snapshots theta_1, theta_2, ... are frozen. For each
coordinate, with h in R^n_h and no biases in the gates:

    z = sigmoid(theta_i U_z + h W_z),  r = sigmoid(theta_i U_r + h W_r)          1. gates
    g = tanh(theta_i U_g + (h * r) W_g),  h_i = (1 - z) h + z g                  2. state
    theta*_i = h_i w + b                                                         3. served weights
    start at the stored h_{t-k}, feed theta_{t-k+1..t}                           4. carried state
    omega = argmin sum_{i=t-k+1..t} lambda_i L(theta*_i | D_{i+1})               5. several periods
    lambda_{t-(k-j)} = j / (1 + .. + k),  j = 1..k                               6. linear decay

A row of an embedding table shares its GRUs with all rows, one a dimension; every other scalar has
its own. Order in each period: test theta*, train omega for one pass, store the state.

Read in the released code and the authors' slides; the paper's text was not at hand. Ours: the
``residual``, theta* = theta + h w + b from w = b = 0 (paper: False); the base model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import checks
from ..data.schema import Schema
from ..data.store import Batch, Split
from ..nn.mlp import MLP
from .prequential import Stream, Trained
from .snapshots import Served, Weights, predict, take

if TYPE_CHECKING:
    from jaxtyping import Float

Blocks = dict[str, Tensor]  # one a table: (..., dims, rows); "": the other scalars, (..., count, 1)


def cell(
    theta: Float[Tensor, "G R"],
    h: Float[Tensor, "G R n"],
    U: Float[Tensor, "G 3 n"],
    W: Float[Tensor, "G 3 n n"],
) -> Float[Tensor, "G R n"]:
    """Steps 1 and 2 of G GRUs, each over R coordinates; U, W: of z, r and g."""
    x = theta[..., None]
    z = torch.sigmoid(x * U[:, None, 0] + h @ W[:, 0])
    r = torch.sigmoid(x * U[:, None, 1] + h @ W[:, 1])
    g = torch.tanh(x * U[:, None, 2] + (h * r) @ W[:, 2])
    return (1 - z) * h + z * g


def period_shares(k: int, kind: Literal["linear", "single", "uniform"]) -> Float[Tensor, " k"]:
    """lambda of step 6, oldest first: linear (the paper), the latest period alone, or equal."""
    checks.whole(k=k)
    checks.one_of(("linear", "single", "uniform"), shares=kind)
    weight = {
        "linear": torch.arange(1.0, k + 1),
        "single": F.one_hot(torch.tensor(k - 1), k).float(),
        "uniform": torch.ones(k),
    }[kind]
    return weight / weight.sum()


class Base(nn.Module):
    """Logit <u, v> + MLP([u, v, u * v]) of the schema's first two fields; ours.

    dim: of the tables. width: of the hidden layer. lr: Adam's rate.
    Raises ValueError for values out of range.
    """

    def __init__(self, schema: Schema, dim: int = 8, width: int = 24, lr: float = 0.02):
        checks.whole(dim=dim, width=width)
        checks.positive(lr=lr)
        super().__init__()
        self.lr = lr
        self.user, self.item = (nn.Embedding(f.size, dim) for f in schema.categorical[:2])
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.1)
        self.mlp = MLP(3 * dim, (width,), out=1)

    def forward(self, batch: Batch) -> Float[Tensor, " B"]:
        """Logits."""
        u, v = self.user(batch.ids[:, 0]), self.item(batch.ids[:, 1])
        return (u * v).sum(1) + self.mlp(torch.cat([u, v, u * v], 1)).squeeze(1)

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """Mean cross-entropy."""
        return F.binary_cross_entropy_with_logits(self(batch), batch.labels[:, 0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


TABLES = {"user.weight": 0, "item.weight": 1}  # tables of `Base`, and their columns of ids


class Generator(nn.Module):
    """What is common to generators: the layout of a model's coordinates.

    weights: of one snapshot, for names and shapes. tables: names of those whose rows share a generator.
    """

    def __init__(self, weights: Weights, tables: Sequence[str]):
        super().__init__()
        checks.one_of(weights, **{f"table {i}": name for i, name in enumerate(tables)})
        self.tables = tuple(tables)
        self.rest = {n: w.shape for n, w in weights.items() if n not in self.tables}
        sizes = {n: weights[n].shape[1] for n in self.tables}
        sizes[""] = sum(s.numel() for s in self.rest.values())
        ends = torch.tensor([*sizes.values()]).cumsum(0).tolist()
        self.parts = {n: slice(e - s, e) for (n, s), e in zip(sizes.items(), ends, strict=True)}
        self.groups = ends[-1]

    def blocks(self, sequence: Sequence[Weights]) -> Blocks:
        """k snapshots as coordinates: (k, G, R) a block."""
        found = {n: torch.stack([w[n].T for w in sequence]) for n in self.tables}
        flat = [torch.cat([w[n].flatten() for n in self.rest]) for w in sequence]
        return found | {"": torch.stack(flat)[..., None]}

    def weights(self, blocks: Blocks, step: int) -> Weights:
        """One snapshot of coordinates as a model's weights."""
        found = {n: blocks[n][step].T for n in self.tables}
        flat = blocks[""][step, :, 0].split([s.numel() for s in self.rest.values()])
        return found | {n: f.view(s) for (n, s), f in zip(self.rest.items(), flat, strict=True)}


class GRUGenerator(Generator):
    """Steps 1 to 3 for every coordinate: 3 (n + n^2) + n + 1 weights a GRU.

    hidden: n_h. residual: theta* = theta + h w + b; False is the paper's form.
    memory: False reads each snapshot from the first state, so that theta*_i sees theta_i alone.
    """

    def __init__(
        self,
        weights: Weights,
        tables: Sequence[str],
        hidden: int = 4,
        residual: bool = True,
        memory: bool = True,
    ):
        checks.whole(hidden=hidden)
        super().__init__(weights, tables)
        self.hidden, self.residual, self.memory = hidden, residual, memory

        def start(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(self.groups, *shape).uniform_(-0.5, 0.5))

        self.U, self.W, self.w = start(3, hidden), start(3, hidden, hidden), start(hidden)
        self.b = nn.Parameter(torch.zeros(self.groups))
        if residual:
            nn.init.zeros_(self.w)

    def zeros(self, blocks: Blocks) -> Blocks:
        """The state before the first snapshot."""
        return {n: x.new_zeros(*x.shape[1:], self.hidden) for n, x in blocks.items()}

    def forward(self, blocks: Blocks, state: Blocks) -> tuple[Blocks, Blocks]:
        """theta*_1..k (k, G, R) and h_1..k (k, G, R, n) of each block, from the state before."""
        served, states = {}, {}
        for name, sequence in blocks.items():
            at, h, seen = self.parts[name], state[name], []
            for theta in sequence:
                seen.append(cell(theta, h, self.U[at], self.W[at]))
                h = seen[-1] if self.memory else h
            states[name] = torch.stack(seen)
            out = torch.einsum("kgrn,gn->kgr", states[name], self.w[at]) + self.b[at, None]
            served[name] = sequence + out if self.residual else out
        return served, states


class LinearGenerator(Generator):
    """The paper's linear variant: a softmax-weighted sum of the k snapshots, equal at the start.

    It serves after the last snapshot only, so that it trains on the latest period alone.
    """

    def __init__(self, weights: Weights, tables: Sequence[str], k: int = 3):
        checks.whole(k=k)
        super().__init__(weights, tables)
        self.logits = nn.Parameter(torch.zeros(k, self.groups))

    def zeros(self, blocks: Blocks) -> Blocks:
        """No state."""
        return {n: x.new_zeros(*x.shape[1:], 0) for n, x in blocks.items()}

    def forward(self, blocks: Blocks, state: Blocks) -> tuple[Blocks, Blocks]:
        """theta* after the last snapshot, (1, G, R) a block; no states."""
        shares = self.logits.softmax(0)
        served = {
            n: (shares[:, self.parts[n], None] * x).sum(0, keepdim=True) for n, x in blocks.items()
        }
        return served, {n: h[None] for n, h in state.items()}


class ASMG(Served):
    """A generator that learns along a stream (a method of `prequential`).

    model, snapshots: the base and its weights by period, see `freeze`. tables: name of a table ->
    its column of ids. k: snapshots that are read. carried: step 4; False starts at zero.
    shares: see `period_shares`. lr: Adam's rate; batch_size: rows a step of each period. One pass.
    Until k + 1 periods have snapshots the latest snapshot is served.
    Raises ValueError for values out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        snapshots: Sequence[Weights | None],
        generator: GRUGenerator | LinearGenerator,
        *,
        tables: dict[str, int] = TABLES,
        k: int = 3,
        carried: bool = True,
        shares: Literal["linear", "single", "uniform"] = "linear",
        lr: float = 0.01,
        batch_size: int = 512,
        seed: int = 0,
    ):
        checks.whole(batch_size=batch_size)
        checks.positive(lr=lr)
        checks.whole(0, seed=seed)
        super().__init__(model, snapshots, self._serve)
        self.generator, self.columns, self.k, self.carried = generator, tables, k, carried
        self.shares, self.batch_size, self.seed = period_shares(k, shares), batch_size, seed
        self.optimiser = torch.optim.Adam(generator.parameters(), lr=lr)
        self.state: Blocks | None = None  # h before the window that is served

    def _serve(self, sequence: list[Weights]) -> Weights:
        if self.state is None:
            return sequence[-1]
        served, _ = self.generator(self.generator.blocks(sequence[-self.k :]), self.state)
        return self.generator.weights(served, -1)

    def update(self, periods: Sequence[Split]) -> Self:
        """Train omega on the last k periods, each with the weights that served it (step 5)."""
        before = self.so_far()[-self.k :]  # theta_{t-k+1..t}: their next periods are the last k
        super().update(periods)
        if len(before) < self.k:
            return self
        blocks, targets = self.generator.blocks(before), periods[-self.k :]
        state = self.generator.zeros(blocks) if self.state is None else self.state
        draw = torch.Generator().manual_seed(self.seed + 1_000 * len(periods))
        steps = -(-max(map(len, targets)) // self.batch_size)
        orders = [torch.randperm(len(p), generator=draw).tensor_split(steps) for p in targets]
        for index in zip(*orders, strict=True):
            batches = [p.take(i) for p, i in zip(targets, index, strict=True)]
            loss = self.loss(blocks, state, batches)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
        with torch.no_grad():
            first = {n: h[0] for n, h in self.generator(blocks, state)[1].items()}
        self.state = first if self.carried else self.generator.zeros(blocks)
        return self

    def loss(self, blocks: Blocks, state: Blocks, batches: list[Batch]) -> Float[Tensor, ""]:
        """Step 5 for one batch of each period.

        Only the rows of tables that the batches read are generated, which changes no number.
        """
        ids, blocks, state = [b.ids.clone() for b in batches], dict(blocks), dict(state)
        for name, column in self.columns.items():
            used, place = torch.cat([i[:, column] for i in ids]).unique(return_inverse=True)
            for i, own in zip(ids, place.split([len(i) for i in ids]), strict=True):
                i[:, column] = own
            blocks[name], state[name] = blocks[name][..., used], state[name][:, used]
        served, _ = self.generator(blocks, state)
        steps = len(served[""])
        shares = self.shares[-steps:] / self.shares[-steps:].sum()
        total = torch.zeros(())
        for j in range(-steps, 0):
            if shares[j]:
                batch = batches[j]._replace(ids=ids[j])
                logits = predict(self.model, self.generator.weights(served, j), batch)
                loss = F.binary_cross_entropy_with_logits(logits, batch.labels[:, 0])
                total = total + shares[j] * loss
        return total


def freeze(model: nn.Module, stream: Stream, first: int, **options) -> list[Weights | None]:
    """Fine-tune along a stream; by period, the weights after training on it.

    first: periods of pre-training; before its end there are no snapshots. options: of `Trained`.
    """
    method, snapshots = Trained(model, **options), [None] * (first - 1)
    for t in range(first, len(stream.periods)):
        method.update(stream.periods[:t])
        snapshots.append(take(model))
    return snapshots
