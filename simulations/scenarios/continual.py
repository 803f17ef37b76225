"""Continual scenarios: one run."""

from __future__ import annotations

import os
import time

from fedcl_distill.data import Splits
from simulations.data import load_splits, tell_notes
from simulations.running.progress import Silent, Watcher
from simulations.running.runs import Record, make_record
from strategies.continual import ContinualResult, ContinualSettings

KIND = "continual"


def run_continual(
    settings: ContinualSettings,
    watcher: Watcher | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Record:
    """Train through the stream and return the result line; ``checkpoint`` as for ``run_stream``.

    Raises:
        SettingsError, DataError: settings that do not fit each other or the data.
    """
    started = time.monotonic()
    watcher = watcher or Silent()
    splits = _splits(settings, watcher)
    notes = tell_notes(splits.notes, watcher)
    result = _simulate(settings, splits, watcher, checkpoint)
    return make_record(KIND, settings.as_record(), {**result.as_record(), **notes}, time.monotonic() - started)


def simulate(
    settings: ContinualSettings,
    watcher: Watcher | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> ContinualResult:
    """:func:`run_continual`'s run with everything it left behind: the accuracy matrix and the memory."""
    watcher = watcher or Silent()
    return _simulate(settings, _splits(settings, watcher), watcher, checkpoint)


def _splits(settings: ContinualSettings, watcher: Watcher) -> Splits:
    return load_splits(settings.data, root=settings.data_root, train_limit=settings.train_limit, watcher=watcher)


def _simulate(
    settings: ContinualSettings, splits: Splits, watcher: Watcher, checkpoint: str | os.PathLike[str] | None
) -> ContinualResult:
    from strategies.continual import run_stream  # here, because importing Avalanche takes ten seconds

    with watcher.stage(_describe(settings)) as stage:

        def on_stage(index: int, accuracies: tuple[float, ...]) -> None:
            seen = 100 * _seen(index, accuracies)
            stage.update((index + 1) / settings.experiences, f"accuracy on what was seen {seen:.1f} %")

        result = run_stream(settings, splits, on_stage, checkpoint=checkpoint)
    watcher.note(f"{_describe(settings)}: {_outcome(result)}")
    return result


def _seen(index: int, accuracies: tuple[float, ...]) -> float:
    """Mean accuracy on the experiences up to ``index``."""
    return sum(accuracies[: index + 1]) / (index + 1)


def _describe(settings: ContinualSettings) -> str:
    return f"{settings.label} · {settings.data} · {settings.experiences} experiences"


def _outcome(result: ContinualResult) -> str:
    matrix = result.matrix
    return (
        f"average accuracy {100 * matrix.average_accuracy:.1f} %, forgetting {100 * matrix.forgetting:.1f} %, "
        f"{result.bytes_kept[-1]:,} bytes kept"
    )
