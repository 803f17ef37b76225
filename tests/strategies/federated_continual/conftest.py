"""A protocol of few epochs: whole runs here train a model at every stage."""

from __future__ import annotations

import pytest

from fedcl_distill.evaluation import PROTOCOLS, Protocol
from fedcl_distill.training import TrainConfig


@pytest.fixture(autouse=True)
def brief_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    train_config = TrainConfig(epochs=60, learning_rate=0.05, batch_size=16, schedule="cosine")
    monkeypatch.setitem(PROTOCOLS, "brief", Protocol("brief", train_config, networks=1, width=8))
