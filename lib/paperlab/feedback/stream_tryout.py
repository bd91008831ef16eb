"""What `paperlab.tryout` compares on a reader's stream: the methods of notebook 305's real section."""

from __future__ import annotations


def contenders() -> dict[str, None]:
    """Names in `snapshot_study.TRIED`."""
    simple = ("fine-tuned", "EMA", "extrapolation", "ASMG-linear", "map without history")
    return dict.fromkeys(("ASMG", *simple, "popularity"))
