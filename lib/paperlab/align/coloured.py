"""Which tokens of a pair of responses OTPO weighs: rows for a record, and a text coloured by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from .. import checks
from ..lm.preferences import Preferences, from_text
from ..lm.training import padding
from . import otpo

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from ..data.kinds import PreferenceTexts

SIDES = ("chosen", "rejected")


@torch.no_grad()
def weighed(policy: nn.Module, pairs: Preferences, **transport) -> list[dict]:
    """One row per response token: ``pair``, ``side``, ``token``, and its ``weight`` over the mean.

    The mean is that of the response's weights, so that 1 is the weight of the uniform budget.
    policy: a module like `TinyLM`, whose states (`otpo.token_states`, predictor) set the distances.
    transport: arguments of `otpo.token_weights`.
    """
    batch, rows = pairs.take(range(len(pairs))), []
    states = otpo.token_states(policy(batch.ids, padding(batch.attention)).hidden)
    masks = batch.mask[:, 1:].chunk(2)
    found = otpo.token_weights(*states.chunk(2), *masks, **transport)
    for k, pair in enumerate(pairs.pairs):
        for side, weights, mask in zip(SIDES, found[:2], masks, strict=True):
            own = weights[k][mask[k]]
            for token, weight in zip(
                pairs.strings(getattr(pair, side)), (own / own.mean()).tolist(), strict=True
            ):
                rows.append({"pair": k, "side": side, "token": token, "weight": weight})
    return rows


def text(rows: Sequence[dict], pair: int, wide: int = 8) -> go.Figure:
    """Both responses of a pair as text, every token on the colour of its weight.

    rows: of `weighed`. wide: tokens of a line. Raises ValueError for a pair that rows do not have.
    """
    import plotly.graph_objects as go

    checks.one_of(sorted({row["pair"] for row in rows}), pair=pair)
    checks.whole(wide=wide)
    words, values, names = [], [], []
    for side in SIDES:
        own = [row for row in rows if row["pair"] == pair and row["side"] == side]
        for start in range(0, len(own), wide):
            line = own[start : start + wide]
            empty = wide - len(line)
            words.append([_written(row["token"]) for row in line] + [""] * empty)
            values.append([row["weight"] for row in line] + [None] * empty)
            names.append(f"{side} {start + 1}–{start + len(line)}")
    # one colour scale for all pairs, in which white is the uniform budget's weight
    cells = go.Heatmap(
        z=values, text=words, y=names, texttemplate="%{text}", colorscale="RdBu_r", zmin=0, zmax=2,
        colorbar_title="weight<br>/ mean", hovertemplate="%{text}: %{z:.2f}<extra></extra>", xgap=2, ygap=4,
    )  # fmt: skip
    figure = go.Figure(cells).update_yaxes(autorange="reversed", title="response, tokens")
    title = "OTPO's weight of every token, over its response's mean"
    return figure.update_layout(title=title, height=170 + 32 * len(names)).update_xaxes(
        visible=False
    )


def _written(token: str) -> str:
    """A token of a byte-level tokenizer as a reader writes it, safe in a figure's text."""
    plain = token.replace("Ġ", " ").replace("Ċ", "⏎").strip() or "␣"
    return plain.replace("&", "&amp;").replace("<", "&lt;")


def example(model: str, data: PreferenceTexts) -> tuple[nn.Module, Preferences]:
    """A checkpoint of `paperlab.lm.hub`, and the first pair of a set in its tokens, at most 32 each."""
    from ..lm import hub

    policy = hub.load_checkpoint(model)
    pairs = from_text(data.name, data.rows[:1], [])
    return policy.eval(), hub.tokenise(pairs, policy.tokenizer).truncated(32, 32)
