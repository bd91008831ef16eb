"""Plain stacks of linear layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from .. import checks


class MLP(nn.Sequential):
    """[Linear, BatchNorm?, activation, Dropout?]* and, with ``out``, a last Linear (BARS's block).

    Linear weights are Xavier normal and biases 0, as in BARS.
    widths: units of each hidden layer; out: units of the last, bare Linear, or None for none.
    dropout: probability in [0, 1).
    Raises ValueError for values out of range.
    """

    def __init__(
        self,
        d_in: int,
        widths: Sequence[int],
        out: int | None = None,
        dropout: float = 0.0,
        batch_norm: bool = False,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ):
        checks.widths(True, widths=widths)
        checks.inside("[0, 1)", dropout=dropout)
        layers: list[nn.Module] = []
        for width in widths:
            layers.append(linear(d_in, width))
            if batch_norm:
                layers.append(nn.BatchNorm1d(width))
            layers.append(activation())
            if dropout:
                layers.append(nn.Dropout(dropout))
            d_in = width
        if out is not None:
            layers.append(linear(d_in, out))
        super().__init__(*layers)
        self.d_out = d_in if out is None else out


def linear(d_in: int, d_out: int, bias: bool = True) -> nn.Linear:
    """A Linear with Xavier normal weights and zero biases (BARS's initial values)."""
    layer = nn.Linear(d_in, d_out, bias)
    nn.init.xavier_normal_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
