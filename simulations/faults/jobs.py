"""What is killed: each job works in a folder, and goes on from what an earlier call left there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from simulations.cli import app
from simulations.running.records import RESULTS, append_record, finished_keys, make_record, settings_key

_NETWORK = "dm.architecture=convnet:width=8"
_STEPS = 60
_MAX_SECONDS = 300.0
_SERVER_NOTICES_SECONDS = 60.0
"""Flower's ServerApp sees by itself that its SuperLink is gone."""
STARTS = "starts.log"


@dataclass(frozen=True)
class Job:
    """A named piece of work.

    Attributes:
        name: on the command line.
        work: does it, or the rest of it, in a folder.
        loads: modules that all copies of a process shall have loaded, so that kills do not only fall on imports.
        goodbye_seconds: within which all that it started must be gone after it was killed.
    """

    name: str
    work: Callable[[Path], None]
    loads: tuple[str, ...]
    goodbye_seconds: float = 10.0


def distil(folder: Path) -> None:
    """One distillation that writes a checkpoint after every step, and the step it started from into a log."""
    from fedcl_distill import Budget, build_method, load_data, save
    from fedcl_distill.engine import Callback, Checkpoints
    from fedcl_distill.engine.loop import Run
    from fedcl_distill.files import append_line

    class Starts(Callback):
        def on_start(self, run: Run) -> None:
            append_line(folder / STARTS, str(run.state.step))

    settings = {"steps": _STEPS}
    key = settings_key("distil", settings)
    if key in finished_keys(folder / RESULTS):
        return
    data, checkpoint = load_data("digits"), folder / "run.pt"
    synthetic = build_method("dm", architecture="convnet:width=8").distil(
        data.train,
        1,
        seed=0,
        budget=Budget(steps=_STEPS),
        checkpoint=checkpoint,
        callbacks=[Starts(), Checkpoints(checkpoint, every_seconds=0.0)],
    )
    save(synthetic, folder / "digits.safetensors")
    losses = {"final_loss": synthetic.provenance["final_loss"]}
    append_record(folder / RESULTS, make_record("distil", settings, losses, 0.0))


def deployment(folder: Path) -> None:
    """A run of Flower with three nodes over TLS. With this process everything ends: SuperLink, server and nodes."""
    from fedcl_distill.files import append_line
    from simulations.flower.under_flower import CHECKPOINT, run_deployed
    from simulations.settings import FederatedSettings

    settings = FederatedSettings(
        strategy="fedavg", clients=3, rounds=4, local_epochs=3, train_limit=300, architecture="convnet:width=4"
    )
    append_line(folder / STARTS, str(int((folder / CHECKPOINT).exists())))
    run_deployed(settings, timeout=_MAX_SECONDS, keep=folder)


def _command(*arguments: str) -> Callable[[Path], None]:
    """The same as ``fedcl-distill ARGUMENTS --out FOLDER``."""

    def work(folder: Path) -> None:
        status = app([*arguments, "--out", str(folder)], prog_name="fedcl-distill", standalone_mode=False)
        if status:  # a refusal, say; it was printed
            raise RuntimeError(f"fedcl-distill {arguments[0]} ended with status {status}")

    return work


_SMALL = ("--train-limit", "300", "--images-per-class", "1")
_METHODS = ("--method", "dm", "--method", "random")
_SEEDS = ("--seed", "0", "--seed", "1")
_JUDGES = ("--networks", "1", "--architecture", "convnet:width=4")
_DISTIL = (*_SMALL, *_JUDGES, "--distil-steps", "20", "--method-settings", _NETWORK, *_SEEDS)
_FEDERATED = (*_SMALL, "--architecture", "convnet:width=4", "--clients", "3", "--method", "random")
_TWO = ("--workers", "2")

_STREAM = ("--train-limit", "300", "--architecture", "mlp:width=16", "--epochs", "2", "--experiences", "5")
_DATA = ("fedcl_distill.methods", "sklearn.datasets")

JOBS = {
    job.name: job
    for job in (
        Job("distil", distil, (*_DATA, "simulations.running.records")),
        Job("comparison", _command("distil", *_METHODS, *_DISTIL), (*_DATA, "simulations.commands.distil")),
        Job(
            "table",
            _command("distil-table", "--data", "digits", *_METHODS, *_TWO, *_DISTIL),
            (*_DATA, "simulations.commands.distil_table"),
        ),
        Job(
            "federated",
            _command("federated", "--strategy", "one-shot", "--strategy", "fedavg", *_FEDERATED),
            (*_DATA, "simulations.commands.federated"),
        ),
        Job(
            "workers",
            _command("federated", "--strategy", "one-shot", *_SEEDS, *_TWO, *_FEDERATED),
            (*_DATA, "simulations.commands.federated"),
        ),
        Job(
            "continual",
            _command("continual", "--strategy", "reservoir", "--strategy", "naive", *_STREAM),
            (*_DATA, "simulations.commands.continual", "strategies.continual.run"),
        ),
        Job("deployment", deployment, ("simulations.flower.under_flower",), _SERVER_NOTICES_SECONDS),
    )
}
