"""What privacy costs: private statistics at many ε, from one pass over the data."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, field
from pathlib import Path
from typing import Any

from fedcl_distill.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from fedcl_distill.data import LabelledData
from fedcl_distill.engine import Budget, finished
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods.private import PrivateStatistics, private_statistics
from fedcl_distill.networks import Architecture
from fedcl_distill.privacy import NoiseSource, publicly_scaled
from fedcl_distill.privacy.accounting import DELTA, Delta
from fedcl_distill.settings import Count, NonNegative, settings
from fedcl_distill.statistics import (
    ClassStatistics,
    NoisyStatistics,
    StatisticsSpec,
    Sums,
    add_up_noisy,
    class_statistics,
    no_statistics,
    with_noise,
)
from fedcl_distill.synthetic import encoded_bytes, load, save
from fedcl_distill.synthetic.quantise import Bits
from simulations.data import load_splits
from simulations.running.progress import Silent, Watcher
from simulations.running.runs import Kind, Record, checkpoint_of, make_record, settings_key
from simulations.scenarios.distil import judge
from simulations.settings import ProtocolName, without_places


@settings
class PrivacySettings:
    """Settings of one private release, of what is distilled from it, and of how that is judged.

    Attributes:
        data: name of the data set, or path of an .npz file or image folder.
        data_root: folder to search first; a place on this computer, and no part of a result's settings.
        train_limit: at most so many training samples, drawn at random; all by default.
        nodes: how many add noise, each as much as the guarantee needs: 1 where all records are in one place, or with a
            server that all trust. Who holds which records does not matter: their sums add up.
        epsilon, delta: of the guarantee; 0 for no noise.
        statistics: settings of the method ``private-statistics``, such as ``views=8``.
        images_per_class: synthetic samples of each class.
        distil_steps: optimisation steps.
        bits: of each stored value.
        protocol: by which networks are trained on the result.
        networks: how many are trained to judge; the protocol's number by default.
        architecture: of the networks that judge; the protocol's by default.
        device: where to compute, such as cpu or cuda.
        seed: fixes everything but the noise.

    Raises:
        SettingsError: on construction, if a value is out of range or unknown.
    """

    data: str = "digits"
    data_root: str | None = None
    train_limit: Count | None = None
    nodes: Count = 1
    epsilon: NonNegative = 1.0
    delta: Delta = DELTA
    statistics: Mapping[str, Any] = field(default_factory=dict)
    images_per_class: Count = 10
    distil_steps: Count = 300
    bits: Bits = 8
    protocol: ProtocolName = "quick"
    networks: Count | None = None
    architecture: str | None = None
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.architecture is not None:
            Architecture.parse(self.architecture)
        reserved = sorted({"epsilon", "delta", "noise_seed", "ledger"} & set(self.statistics))
        if reserved:
            raise SettingsError(f"{', '.join(reserved)} cannot be among the settings of statistics here")
        _ = self.method

    @property
    def method(self) -> PrivateStatistics:
        """What releases and distils."""
        try:
            return private_statistics(epsilon=self.epsilon, delta=self.delta, **self.statistics)
        except TypeError as error:
            raise SettingsError(f"private statistics: {error}") from error

    def as_record(self) -> dict[str, Any]:
        """JSON values that name the experiment: everything but places on this computer."""
        return without_places(asdict(self))

    def __str__(self) -> str:
        who = "one place" if self.nodes == 1 else f"{self.nodes} nodes"
        return f"privacy · {self.data} · {who} · ε {self.epsilon:g} · seed {self.seed}"


def run_privacy(
    settings: PrivacySettings, watcher: Watcher | None = None, out_dir: str | os.PathLike[str] = "runs"
) -> Record:
    """Release, distil, save, judge what was saved, and return the result line.

    Runs on the same data and statistics share one pass over the data, whose exact sums stay below ``out_dir``. So all
    of them together spend the sum of their ε: they are a simulation of releases of which only one would be made.

    Raises:
        SettingsError, DataError: settings that do not fit each other or the data; too much noise to see a class.
        StorageError: the set could not be written.
    """
    started, watcher = time.monotonic(), watcher or Silent()
    method, name = settings.method, f"{Kind.PRIVACY}-{settings_key(Kind.PRIVACY, settings.as_record())}"
    splits = load_splits(settings.data, root=settings.data_root, train_limit=settings.train_limit)
    with watcher.stage(str(settings)) as stage:
        exact = _exact(splits.train, method.spec, Path(out_dir), settings.device)
        stage.update(0.5, "the data have been looked at")
        noisy = _released(exact, method, settings.nodes)
        synthetic = finished(
            method.distil_noisy(
                noisy,
                settings.images_per_class,
                seed=settings.seed,
                budget=Budget(steps=settings.distil_steps),
                device=settings.device,
            )
        )
        path = f"sets/{name}.safetensors"
        save(synthetic, Path(out_dir) / path, settings.bits)
        judgement = judge(settings, load(Path(out_dir) / path), splits.test)
    watcher.note(f"{settings}: {judgement}")
    metrics = {
        **judgement.as_record(),
        "privacy": None if noisy.guarantee is None else noisy.guarantee.as_record(),
        "payload_bytes": encoded_bytes(synthetic, settings.bits, provenance=False),
        "files": {"set": path},
    }
    return make_record(Kind.PRIVACY, settings.as_record(), metrics, time.monotonic() - started)


def _exact(train: LabelledData, spec: StatisticsSpec, folder: Path, device: str) -> ClassStatistics:
    """Sums of all training data, from the file that an earlier run left, if there is one."""
    data = publicly_scaled(train)
    key = fingerprint(data, spec.settings())
    path = checkpoint_of(Kind.PRIVACY, key[:16], folder)
    kept = load_checkpoint(path, key)
    if kept is None:
        exact = class_statistics(data, spec, device=device)
        kept = {name: {"counts": sums.counts, "values": sums.values} for name, sums in exact.sums.items()}
        save_checkpoint(path, key, kept)
    return ClassStatistics(spec, data.spec, {name: Sums(**sums) for name, sums in kept.items()})


def _released(exact: ClassStatistics, method: PrivateStatistics, nodes: int) -> NoisyStatistics:
    """What ``nodes`` nodes release together: one's noise hides what all hold, the others' that they hold nothing."""
    nothing = no_statistics(exact.spec, exact.domain)
    parts = [exact, *[nothing] * (nodes - 1)]
    noisy = [with_noise(part, method.target, method.shares, NoiseSource.fresh()) for part in parts]
    return add_up_noisy(noisy, disjoint=True)  # a partition has each record once
