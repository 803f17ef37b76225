"""A comparison: many runs of one kind, each result kept as soon as it is there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from simulations.records import Record, append_record, finished_keys, settings_key
from simulations.watch import Watcher


class Settings(Protocol):
    """Settings of one run."""

    def as_record(self) -> dict[str, Any]:
        """JSON values that name the experiment."""
        ...


S = TypeVar("S", bound=Settings)


def compare(
    kind: str,
    runs: Iterable[S],
    run: Callable[[S], Record],
    results_path: str | os.PathLike[str],
    watcher: Watcher,
) -> list[Record]:
    """Do those of ``runs`` that ``results_path`` does not hold yet, and append each result as soon as it is there.

    A comparison that was interrupted goes on where it stopped. Returns the new results.
    """
    done, new = finished_keys(results_path), []
    todo = [settings for settings in runs if settings_key(kind, settings.as_record()) not in done]
    with watcher.stage(f"{len(todo)} {kind} runs") as stage:
        for position, settings in enumerate(todo):
            new.append(run(settings))
            append_record(results_path, new[-1])
            stage.update((position + 1) / len(todo))
    return new
