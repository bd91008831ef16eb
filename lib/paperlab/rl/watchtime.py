"""What a request of a mixed feed is worth, and watch times as buckets (SL-MGAC's label coding).

Constants are those of the paper's research code; see `paperlab.rl.sl_mgac`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

T_BAN = 13.0  # s; not inserting counts like this much video: 10 + 15 (.34 - .3) / .2
REWARDS = ("paper", "live")


def reward(
    live: Float[Tensor, " B"],
    video: Float[Tensor, " B"],
    inserted: Bool[Tensor, " B"],
    form: str = "paper",
) -> Float[Tensor, " B"]:
    """What one request is worth; live and (mean) video watch time in seconds.

    ``paper``: sigmoid(0.1 (live - video)) if inserted, else sigmoid(-1.3) = .2142; in (0, 1).
    ``live``: live minutes, the greedy reward that the paper argues against.
    """
    one_of("form", form, REWARDS)
    if form == "live":
        return live * inserted / 60
    return torch.sigmoid(0.1 * torch.where(inserted, live - video, -T_BAN))


class Buckets(nn.Module):
    """Watch time as a bucket and a ratio inside it; edges in seconds, the last one is a ceiling."""

    def __init__(self, *edges: float):
        super().__init__()
        self.register_buffer("starts", torch.tensor(edges[:-1]), persistent=False)
        self.register_buffer("widths", torch.tensor(edges).diff(), persistent=False)

    def encode(self, seconds: Float[Tensor, " B"]) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
        """Bucket in 0..6 and ratio in [0, 1]; times are clipped into the outer edges."""
        seconds = seconds.clamp(self.starts[0], self.starts[-1] + self.widths[-1])
        bucket = torch.bucketize(seconds, self.starts[1:], right=True)
        return bucket, (seconds - self.starts[bucket]) / self.widths[bucket]

    def decode(self, bucket: Int[Tensor, " B"], ratio: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Seconds."""
        return self.starts[bucket] + ratio * self.widths[bucket]


def live_buckets() -> Buckets:
    return Buckets(0.0, 6.0, 15.0, 30.0, 60.0, 100.0, 600.0, 1200.0)


def video_buckets() -> Buckets:  # of the mean over a page's videos
    return Buckets(0.0, 3.0, 10.0, 25.0, 50.0, 100.0, 600.0, 1200.0)


def one_of(name: str, value, allowed: tuple) -> None:
    """Refuse an option that is none."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value!r}")
