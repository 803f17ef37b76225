"""Truth: a Ctrl-C pressed in the middle of distilling."""

import pytest

from builders import blobs
from fedcl_distill.engine import Budget
from fedcl_distill.engine.loop import Loop
from fedcl_distill.methods import build_method
from strategies.continual import DistilledMemory


def test_an_interrupted_distillation_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Loop._step

    def interrupted(loop: Loop, *view: object) -> None:
        if loop.run_.state.step == 2:
            raise KeyboardInterrupt
        step(loop, *view)

    monkeypatch.setattr(Loop, "_step", interrupted)
    distiller = build_method("dm", architecture="mlp:width=8", augmentation="none")
    memory = DistilledMemory(2000, distiller=distiller, budget=Budget(steps=5))
    with pytest.raises(KeyboardInterrupt):
        memory.add(blobs())
    assert memory.recall() is None
