"""One candidate of a tuning, run on training data of which a share is held out."""

from __future__ import annotations

import os

from fedcl_distill.errors import DivergenceError
from simulations.attacks import AttackedSettings
from simulations.running.records import Record, make_record
from simulations.running.watch import Watcher
from simulations.scenarios.federated import run_federated
from strategies.federated.collector import QuorumError

TRIAL = "federated-trial"
"""Kind of the results of candidates."""


def run_trial(
    settings: AttackedSettings, watcher: Watcher | None = None, checkpoint: str | os.PathLike[str] | None = None
) -> Record:
    """One candidate's result line; a candidate under which training breaks down has accuracy 0 and a ``failure``.

    Raises:
        SettingsError, DataError: settings that do not fit each other or the data.
    """
    try:
        record = run_federated(settings, watcher, checkpoint)
    except (DivergenceError, QuorumError) as error:
        metrics = {"accuracy": 0.0, "failure": " ".join(str(error).split())}
        return make_record(TRIAL, settings.as_record(), metrics, 0.0)
    return make_record(TRIAL, settings.as_record(), record["metrics"], record["seconds"])
