"""Every annotated call of a log's way to a model, checked by jaxtyping and beartype."""

import subprocess
import sys
import textwrap

CHECKED = """
import sys, typing
from pathlib import Path
import beartype, lightning, numpy as np, polars as pl, torch, torch.distributed, tqdm
from jaxtyping import TypeCheckError, install_import_hook

typing.TYPE_CHECKING = True                  # our annotations' names now exist at run time
with install_import_hook(["paperlab.nn", "paperlab.data", "paperlab.metrics", "paperlab.interest.worlds"], "beartype.beartype"):
    from paperlab import data, metrics
    from paperlab.nn.embedding import FeatureEmbedding
    from paperlab.data import batches, interactions, kinds, next_items, prepare, schema, sources, store, stores
    from paperlab.interest.worlds import interest_sequences
typing.TYPE_CHECKING = False
try:
    metrics.auc(torch.zeros(2, 2), torch.zeros(2, 2))
except TypeCheckError:
    pass                                     # the checks are on: a wrong shape is refused
else:
    raise SystemExit("shapes were not checked")

log = interest_sequences.interest_sequences(200, lengths=(0, 9))
log.truth.g(np.array([1.0, 2.0]))
embed = FeatureEmbedding(log.schema, 4)
for batch in batches.Batches(log.train, 16):
    embed(batch), embed.sequence(batch)
draw = np.random.default_rng(0)
columns = {"u": draw.integers(0, 20, 300), "i": draw.integers(0, 60, 300), "t": draw.integers(0, 9, 300)}
source, what = sources.FrameSource(pl.DataFrame(columns)), interactions.Interactions("u", "i", "t")
next_items.prepare(source, what, Path(sys.argv[1]) / "x", {})
made = next_items.open_next_items(Path(sys.argv[1]) / "x", "x", negatives="popular")
scores, labels, users = torch.rand(len(made.test)), made.test.labels[:, 0], made.user("test")
metrics.gauc(scores, labels, users)
print("checked")
"""


def test_shapes_in_signatures_are_true(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHECKED), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.split() == ["checked"]
