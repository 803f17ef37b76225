"""Strategies whose nodes do not evaluate: the server does."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy


class TrainOnly(Strategy):
    """Asks nodes for nothing but training."""

    def forget_nodes(self) -> None:
        """Nothing: nodes keep nothing that the server mirrors."""

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Nothing: the server evaluates."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> None:
        """Nothing: the server evaluates."""
