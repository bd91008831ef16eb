"""What `paperlab.tryout` compares on a reader's log of amounts: the models of notebook 303."""

from __future__ import annotations

from .watch_time_study import RIVALS


def contenders() -> dict[str, None]:
    """Names in `amount_contenders.contenders`: generative regression, teacher forcing, three medians."""
    return dict.fromkeys(("GR", *RIVALS))
