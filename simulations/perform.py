"""What does a run of each kind: the one place where kinds and the scenarios behind them meet."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from fedcl_distill.errors import SettingsError
from simulations.costs import check_device
from simulations.running.progress import Watcher, watch_distillations
from simulations.running.runs import Record, Run, Settings, checkpoint_of


def perform(
    kind: str, settings: Mapping[str, Any], watcher: Watcher, folder: Path, *, checkpoints: bool = True
) -> Record:
    """Do a run in this process, with its files below ``folder``.

    It imports what the kind needs: Avalanche for continual runs alone.

    Raises:
        SettingsError: there is no such kind, or no such device here.
    """

    check_device(str(settings.get("device", "cpu")))
    shown = nullcontext() if kind == "distil" else watch_distillations(watcher)  # which shows its one by itself
    with shown:
        return _perform(kind, settings, watcher, folder, checkpoints)


def _perform(kind: str, settings: Mapping[str, Any], watcher: Watcher, folder: Path, checkpoints: bool) -> Record:
    def checkpoint(settings: Settings) -> Path | None:
        return checkpoint_of(kind, Run(kind, settings).key, folder) if checkpoints else None

    if kind == "distil":
        from simulations.scenarios.distil import DistilSettings, run_distil

        return run_distil(DistilSettings(**settings), watcher, folder, checkpoints=checkpoints)
    if kind == "federated":
        from simulations.attacks import AttackedSettings
        from simulations.scenarios.federated import run_federated

        federation = AttackedSettings(**settings)
        return run_federated(federation, watcher, checkpoint(federation))
    if kind == "federated-trial":
        from simulations.attacks import AttackedSettings
        from simulations.scenarios.federated import run_trial

        trial = AttackedSettings(**settings)
        return run_trial(trial, watcher, checkpoint(trial))
    if kind == "continual":
        from simulations.scenarios.continual import run_continual
        from strategies.continual import ContinualSettings

        stream = ContinualSettings(**settings)
        return run_continual(stream, watcher, checkpoint(stream))
    if kind == "federated-continual":
        from simulations.scenarios.federated_continual import run_federated_continual
        from simulations.settings import FederatedContinualSettings

        both = FederatedContinualSettings(**settings)
        return run_federated_continual(both, watcher, checkpoint(both))
    if kind == "audit":
        from simulations.audit.game import AuditSettings
        from simulations.audit.run import run_audit

        return run_audit(AuditSettings(**settings), watcher, folder, checkpoints=checkpoints)
    if kind == "privacy":
        from simulations.scenarios.privacy import PrivacySettings, run_privacy

        return run_privacy(PrivacySettings(**settings), watcher, folder)
    known = "distil, federated, federated-trial, continual, federated-continual, audit, privacy"
    raise SettingsError(f"unknown kind of run {kind!r}; known: {known}")
