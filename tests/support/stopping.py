"""A run that ends as Ctrl-C ends it."""

from __future__ import annotations

from fedcl_distill.engine import Callback
from fedcl_distill.engine.loop import Run


class StopAt(Callback):
    """Presses Ctrl-C after so many steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, run: Run) -> None:
        if run.progress.step == self.step:
            raise KeyboardInterrupt
