"""What the server of FedAvg reads from the first gradient of a small batch."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
from torch import Tensor

from fedcl_distill.audit import GradientInversion, batch_gradients, matched
from fedcl_distill.data import DataSpec, LabelledData
from fedcl_distill.networks import Architecture
from fedcl_distill.parameterizations import Pixels
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.settings import Count, Range, settings
from fedcl_distill.synthetic import SyntheticSet, save_png
from simulations.data import load_splits
from simulations.names import without_places
from simulations.running.progress import Silent, Watcher
from simulations.running.runs import Kind, Record, make_record, settings_key

_MAX_BATCH = 6


@settings
class GradientSettings:
    """A model, and batches whose gradients on it are inverted.

    Attributes:
        data: name of the data set.
        data_root: folder to search first; a place on this computer, and no part of a result's settings.
        architecture: of the model, which is fresh, as in the first round; by default an MLP of width 128, the kind
            that FedAvg's authors begin with, too (McMahan et al. 2017).
        batch: samples of a gradient, up to 6.
        batches: how many are drawn from the training data.
        steps: of the attack on each.
        seed: fixes model, batches and attack.

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    data: str = "digits"
    data_root: str | None = None
    architecture: str | None = None
    batch: Annotated[int, Range(ge=1, le=_MAX_BATCH)] = 1
    batches: Count = 2
    steps: Count = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        _ = self.model

    @property
    def model(self) -> Architecture:
        return Architecture.parse(self.architecture or "mlp:width=128")

    def as_record(self) -> dict[str, Any]:
        """JSON values that name the experiment: everything but places on this computer."""
        return without_places(asdict(self))


def run_gradients(settings: GradientSettings, watcher: Watcher | None = None, folder: Path | None = None) -> Record:
    """Invert the gradients of ``settings.batches`` batches; with ``folder``, a picture shows originals and guesses.

    Raises:
        SettingsError, DataError: settings that do not fit the data.
    """
    started, watcher = time.monotonic(), watcher or Silent()
    data = load_splits(settings.data, root=settings.data_root).train
    network = settings.model.build(data.sample_shape, data.num_classes, seed=settings.seed)
    order = torch.randperm(len(data), generator=generator_for(settings.seed, "victims"))
    attack, bounds = GradientInversion(steps=settings.steps), _bounds(data)
    originals, guesses = [], []
    with watcher.stage(f"gradients of {settings.batches} × {settings.batch} · {settings.data}") as stage:
        for index, rows in enumerate(torch.split(order[: settings.batch * settings.batches], settings.batch)):
            inputs, labels, seed = data.inputs(rows), data.labels[rows], derive_seed(settings.seed, "guess", index)
            seen = batch_gradients(network, inputs, labels)
            guesses.append(attack.invert(network, seen, labels, data.sample_shape, seed=seed, bounds=bounds))
            originals.append(inputs)
            stage.update((index + 1) / settings.batches)
    unit = data.normalisation.invert
    decibels = torch.cat([matched(unit(one), unit(other)) for one, other in zip(originals, guesses, strict=True)])
    metrics: dict[str, Any] = {"psnr": decibels.tolist(), "files": {}}
    if folder is not None and data.is_image and data.sample_shape[0] in (1, 3):
        metrics["files"]["picture"] = f"audits/gradients-{settings_key(Kind.GRADIENTS, settings.as_record())}.png"
        _save_pairs(torch.cat(originals), torch.cat(guesses), data, folder / metrics["files"]["picture"])
    watcher.note(f"gradients of {settings.batch}: median PSNR {median(decibels.tolist()):.1f} dB")
    return make_record(Kind.GRADIENTS, settings.as_record(), metrics, time.monotonic() - started)


def _bounds(data: LabelledData) -> tuple[Tensor, Tensor]:
    """Smallest and largest network inputs, each with a leading dimension of one."""
    low, high = (torch.full((1, *data.sample_shape), end) for end in data.value_range)
    return data.normalisation.apply(low), data.normalisation.apply(high)


def _save_pairs(originals: Tensor, guesses: Tensor, data: LabelledData, path: Path) -> None:
    """Originals above guesses, in the order of the batches' draws: a gradient does not tell the order of a batch."""
    rows = torch.arange(2).repeat_interleave(len(originals))
    arrays = {"pixels": torch.cat([originals, guesses])}
    spec = DataSpec(data.sample_shape, ("original", "guess"), data.normalisation)
    save_png(SyntheticSet(arrays, Pixels(), rows, spec), path, scale=3)
