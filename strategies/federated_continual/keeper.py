"""What a server keeps from stage to stage beside the model."""

from __future__ import annotations

from typing import Any, Protocol


class Keeper(Protocol):
    """Something that is kept, and counted."""

    @property
    def bytes_kept(self) -> int: ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold: tensors, numbers, texts, and lists and dictionaries of these."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from another one's :meth:`state`, made with the same settings."""
        ...


class Nothing:
    """The model is all there is."""

    bytes_kept = 0

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass
