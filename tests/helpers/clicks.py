"""A small click model and a log that it can learn."""

from paperlab.ctr.worlds.noise_fields import noise_fields
from paperlab.nn.click import ClickModel
from paperlab.nn.mlp import MLP


class Net(ClickModel):
    def __init__(self, schema, sparse=True, dropout=0.0):
        super().__init__(schema, 4, lr=0.01)
        self.embed.sparse = self.embed.table.sparse = sparse
        self.mlp = MLP(self.d_in, (16,), out=1, dropout=dropout)

    def forward(self, batch):
        return self.mlp(self.embed(batch).flatten(1)).squeeze(1)


LOG = noise_fields(6_000, 0, signal=2, pairs=1, vocabulary=8, strength=3.0)
