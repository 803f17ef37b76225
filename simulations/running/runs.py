"""A run as data: its kind and its settings, so that it can be done here or in another process."""

from __future__ import annotations

from dataclasses import Field, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from simulations.running.records import settings_key


class Settings(Protocol):
    """Settings of one run: a dataclass of JSON values."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def as_record(self) -> dict[str, Any]:
        """JSON values that name the experiment."""
        ...


@dataclass(frozen=True)
class Run:
    """One run to do.

    Attributes:
        kind: one that :mod:`~simulations.running.performing` knows, such as "distil" or "federated".
        settings: of that kind.
    """

    kind: str
    settings: Settings

    @property
    def key(self) -> str:
        return settings_key(self.kind, self.settings.as_record())


def checkpoint_of(kind: str, key: str, folder: Path) -> Path:
    """Where a run that was interrupted left how it stands; of kinds that take care of theirs, nothing is there."""
    return folder / f"{kind}-{key}.checkpoint.pt"
