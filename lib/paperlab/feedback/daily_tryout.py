"""What `paperlab.tryout` compares on a reader's clicks by day: the arms of notebook 304's real section."""

from __future__ import annotations


def contenders() -> dict[str, None]:
    """Names in `elbo_tds_study.ARMS`."""
    return dict.fromkeys(("ELBO", "linear", "jitter", "ERM"))
