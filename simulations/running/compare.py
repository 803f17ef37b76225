"""A comparison: many runs, each result kept as soon as it is there, each failure told."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from fedcl_distill.errors import FedclDistillError, StorageError
from fedcl_distill.files import remove
from simulations.running.pool import PoolSettings, Worker, run_in_processes
from simulations.running.progress import Silent, Stage, Watcher
from simulations.running.runs import Record, Run, append_record, checkpoint_of, finished_keys, perform

_NAMES = ("strategy", "method", "data", "seed")


class ComparisonError(FedclDistillError, RuntimeError):
    """Some runs of a comparison failed; what the others gave is there."""


@dataclass
class Failures:
    """What went wrong in a comparison.

    Attributes:
        errors: one for each run that failed.
        asked: how many runs there were to do.
    """

    asked: int = 0
    errors: list[FedclDistillError] = field(default_factory=list)

    def take(self, run: Run, error: Exception) -> str:
        """Keep ``error`` of ``run`` and return a line about it.

        Raises:
            Exception: ``error`` itself, where the next run could not do better: nothing can be written, or it is a
                mistake in the program and not in what was asked.
        """
        if isinstance(error, StorageError) or not isinstance(error, FedclDistillError):
            raise error
        self.errors.append(error)
        return f"failed: {describe(run)}: {error}"

    def check(self) -> None:
        """Return if all runs came to their ends; the reasons were told when they failed.

        Raises:
            ComparisonError: some did not.
        """
        if self.errors:
            raise ComparisonError(f"{len(self.errors)} of {self.asked} runs failed, as told above")


def describe(run: Run) -> str:
    """A few words on ``run``, such as "federated strategy=fedavg seed=0"."""
    settings = run.settings.as_record()
    return " ".join([run.kind, *(f"{name}={settings[name]}" for name in _NAMES if settings.get(name) is not None)])


Perform = Callable[[Run, Watcher, Path], Record]
Ended = tuple[Run, Record | Exception]


def compare(
    runs: Iterable[Run],
    results_path: str | os.PathLike[str],
    watcher: Watcher | None = None,
    workers: int = 1,
    *,
    perform: Perform = perform,
    started: Sequence[Worker] = (),
    failures: Failures | None = None,
) -> list[Record]:
    """Do those of ``runs`` that ``results_path`` does not hold yet, and append each result as soon as it is there.

    A comparison that was interrupted goes on where it stopped, a run from its last checkpoint. Returns the new results,
    in the order of their ends.

    Args:
        runs: of any kinds.
        results_path: file of results; other files of the runs go beside it.
        watcher: hears of progress.
        workers: runs at a time. One runs in this process, with its number of threads; more run in processes of one
            thread each, which changes results by rounding and by nothing else.
        perform: does a run in this process.
        started: processes for the runs that were started beforehand, if there are to be several.
        failures: takes errors of runs, so that the others go on; its ``check`` raises them. None lets the first error
            end the comparison; finished results stay. The error of a single run is raised in any case.

    Raises:
        FedclDistillError: of a run that fails, as ``failures`` says; of a process that ended without a result
            (WorkerError); of results that cannot be written.
    """
    watcher = watcher or Silent()
    done, new, folder = finished_keys(results_path), [], Path(results_path).parent
    todo = [run for run in runs if run.key not in done]
    if failures is not None:
        failures.asked += len(todo)
    with watcher.stage(_describe(todo)) as stage:
        if workers > 1:
            results = _elsewhere(todo, PoolSettings(folder, workers, reuse=True), watcher, stage, started)
        else:
            results = _here(todo, perform, watcher, folder)
        with closing(results):
            for number, (run, result) in enumerate(results, 1):
                if isinstance(result, Exception):
                    if failures is None or len(todo) == 1:
                        raise result
                    watcher.note(failures.take(run, result))
                else:
                    append_record(results_path, result)
                    remove(checkpoint_of(run.kind, run.key, folder))  # only now nothing is lost with it
                    new.append(result)
                stage.update(number / len(todo))
    return new


def _describe(todo: Sequence[Run]) -> str:
    counts = Counter(run.kind for run in todo)
    if not todo:
        return "nothing left to run"
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) + (" run" if len(todo) == 1 else " runs")


def _here(todo: Sequence[Run], perform: Perform, watcher: Watcher, folder: Path) -> Generator[Ended, None, None]:
    for run in todo:
        try:
            result: Record | Exception = perform(run, watcher, folder)
        except FedclDistillError as error:
            result = error
        yield run, result


def _elsewhere(
    todo: Sequence[Run], workers: PoolSettings, watcher: Watcher, stage: Stage, started: Sequence[Worker]
) -> Generator[Ended, None, None]:
    with closing(run_in_processes(todo, workers, stage, watcher.note, started)) as outcomes:
        for outcome in outcomes:
            yield outcome.run, outcome.error() if outcome.record is None else outcome.record
