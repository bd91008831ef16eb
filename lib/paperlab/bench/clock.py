"""Processor time of training steps, counted alike on both sides of a comparison."""

from __future__ import annotations

import time

from lightning.pytorch.callbacks import Callback

WARM = 3  # steps that allocate moments and buffers, once a run: they do not count


class Clock:
    """Processor seconds of a process, and rows, from the end of step ``WARM`` to the last step.

    On one thread processor time is the time that a quiet machine would need: waiting while others
    compute does not count.
    """

    def __init__(self):
        self.steps, self.rows, self.start, self.end = 0, 0, 0.0, 0.0

    def tick(self, rows: int) -> None:
        """A step over ``rows`` rows has ended."""
        self.steps += 1
        self.end = time.process_time()
        if self.steps <= WARM:
            self.start = self.end
        else:
            self.rows += rows

    def run(self) -> dict[str, float]:
        """Seconds, and rows trained on in them. Raises ValueError when no step was counted."""
        if not self.rows:
            raise ValueError(
                f"nothing to time: {self.steps} steps, and the first {WARM} do not count"
            )
        return {"seconds": self.end - self.start, "rows": self.rows}


class ClockCallback(Callback):
    """Tick a clock in `paperlab.loop.fit`; the work that `RowAdam` deferred is the last step's."""

    def __init__(self):
        self.clock = Clock()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx + 1 == trainer.num_training_batches:
            for optimizer in trainer.optimizers:
                optimizer.settle()
        self.clock.tick(module.count(batch))
