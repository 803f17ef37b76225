"""A protocol of few epochs: whole runs here train a model at every stage."""

from __future__ import annotations

import pytest

from fedcl_distill.evaluation import PROTOCOLS, Protocol
from fedcl_distill.training import Recipe


@pytest.fixture(autouse=True)
def brief_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(epochs=40, learning_rate=0.1, batch_size=64, schedule="cosine")
    monkeypatch.setitem(PROTOCOLS, "brief", Protocol("brief", recipe, networks=1, width=8))
