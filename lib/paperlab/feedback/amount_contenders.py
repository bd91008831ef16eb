"""What is compared on a log of amounts: generative regression, its ablations and its rivals."""

from __future__ import annotations

from collections.abc import Callable

from ..data.schema import Schema
from ..data.store import Log
from .generative_regression import GenerativeRegression, tokens_of, vocabulary
from .regressors import AmountModel, L1Regressor, OrdinalBins, QuantileBins, quantile_edges


def contenders(
    log: Log, *, tick: float = 0.1, bins: int = 30, **options
) -> dict[str, Callable[[Schema, int], AmountModel]]:
    """GR, its ablations and its rivals for a log: name -> builder of (schema, width).

    Vocabulary, bins and starting values come from the training part. tick: of the label's unit.
    bins: of "quantile bins" and "ordinal". options: see `AmountModel`.
    """
    amounts = log.train.labels[:, 0]
    ticks = (amounts / tick).round().long()
    values = vocabulary(ticks.numpy())
    edges = quantile_edges(amounts, bins)
    shared = {"tick": tick, "longest": tokens_of(ticks, values).shape[1], **options}

    def sequence(**how) -> Callable[[Schema, int], AmountModel]:
        return lambda schema, width: GenerativeRegression(
            schema, values, width=width, **shared, **how
        )

    return {
        "GR": sequence(),
        "GR hard tokens": sequence(teacher="hard"),
        "GR teacher forcing": sequence(teacher="gold"),
        "GR without Huber": sequence(huber=0.0),
        "L1": lambda schema, width: L1Regressor(schema, amounts, width=width, **options),
        "quantile bins": lambda schema, width: QuantileBins(schema, edges, width=width, **options),
        "ordinal": lambda schema, width: OrdinalBins(schema, edges, width=width, **options),
    }
