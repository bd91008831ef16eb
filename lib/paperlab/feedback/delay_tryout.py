"""What `paperlab.tryout` compares on a reader's log of late conversions: the arms of notebook 302."""

from __future__ import annotations


def contenders() -> dict[str, dict]:
    """Arguments of `esdf.ESDF`. "oracle" trains on all conversions, "clicks only" on clicks alone."""
    return {
        "ESMM": {"delay": None},
        "ESDF": {},
        "DFM": {"delay": "geometric"},
        "global delay": {"delay": "global"},
        "clicks only": {"entire": False},
        "oracle": {"delay": None},
    }
