"""Networks trained on saved sets and on real data, attacked by PGD: does distilling make them easier to lead astray?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fedcl_distill.data import LabelledData, Splits
from fedcl_distill.errors import SettingsError
from fedcl_distill.evaluation import find_protocol
from fedcl_distill.evaluation.adversarial import PGD
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.training import accuracy, fit, train_config_for
from simulations.running.records import Record, append_record, finished_keys, make_record, read_records, settings_key
from simulations.running.watch import Silent, Watcher
from simulations.scenarios.cross_architecture import SavedSet
from simulations.scenarios.data import load_splits
from simulations.tables.comparison import Table
from simulations.tables.formats import number, percent

KIND = "robustness"
_LEVELS = 255  # of a pixel: the unit of epsilon
_LOOK_EVERY = 5  # steps between looks at the accuracy


@dataclass(frozen=True)
class RobustnessSettings:
    """How networks are trained and attacked.

    Attributes:
        architecture: of all networks.
        protocol: by which they are trained on sets; on real data they are trained by the train_config for real data.
        levels: the most that a value may change, in 255ths of the range of values: 8 is the usual 8/255.
        steps: of gradient ascent.
        test_samples: that are attacked, drawn at random.
        data: name of the real data, or path; by default what the set says it was made from.
        data_root: folder to search first; a place on this computer, and no part of a result's settings.
        train_limit: at most so many real training samples; None for all.
        device: where to compute, such as cpu or cuda.
        seed: fixes weights, batch order, augmentation, the samples and the attack's start.

    Raises:
        SettingsError: on construction, if a value is out of range or unknown.
    """

    architecture: str = "convnet:width=32"
    protocol: str = "quick"
    levels: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    steps: int = 20
    test_samples: int = 1000
    data: str | None = None
    data_root: str | None = None
    train_limit: int | None = None
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        Architecture.parse(self.architecture)
        find_protocol(self.protocol)
        if self.test_samples < 1 or not self.levels:
            raise SettingsError("robustness needs at least one test sample and one level")
        for level in self.levels:
            PGD(level, self.steps)


def compare_robustness(
    paths: Sequence[Path],
    cells: Sequence[RobustnessSettings],
    results_path: str | os.PathLike[str],
    watcher: Watcher | None = None,
) -> list[Record]:
    """Attack what every set and the real data make, by every cell; append what ``results_path`` lacks and return all.

    Raises:
        SettingsError: a set does not say what it was made from, or the network cannot read it.
    """
    watcher, keys = watcher or Silent(), []
    with watcher.stage(f"{len(paths)} sets under attack") as stage:
        for place, saved in enumerate(map(SavedSet.read, paths)):
            for cell in cells:
                settings = _named(saved, cell)
                keys.append(settings_key(KIND, settings))
                if keys[-1] not in finished_keys(results_path):
                    splits = load_splits(
                        settings["data"], root=cell.data_root, train_limit=cell.train_limit, seed=cell.seed
                    )
                    append_record(results_path, _measure(saved, cell, settings, splits))
            stage.update((place + 1) / len(paths), saved.method)
    return [record for record in read_records(results_path) if record["key"] in set(keys)]


def table_of_robustness(records: Sequence[Record]) -> Table:
    """One line for each network: what it was trained on, and its accuracy under every level of attack."""
    levels = sorted({level for record in records for level in record["settings"]["levels"]})
    rows = []
    for record in records:
        for one in record["metrics"]["networks"]:
            reached = dict(zip(record["settings"]["levels"], one["adversarial"], strict=True))
            values = [number(one["clean"]), *(number(reached.get(level)) for level in levels)]
            shown = [percent([value] if value is not None else []) for value in values]
            rows.append((f"{record['settings']['file']}: {one['trained_on']}", *shown))
    title = "Accuracy (%) under PGD, by the most that a value may change, in 255ths of its range"
    return Table(title, ("trained on", "0", *(f"{level:g}" for level in levels)), tuple(rows))


def _named(saved: SavedSet, cell: RobustnessSettings) -> dict[str, Any]:
    settings = asdict(cell)
    del settings["data_root"]
    named = {"set": saved.digest, "file": saved.path.name, "method": saved.method, "levels": list(cell.levels)}
    return {**settings, **named, "data": saved.data(cell.data)}


def _measure(saved: SavedSet, cell: RobustnessSettings, settings: dict[str, Any], splits: Splits) -> Record:
    started = time.monotonic()
    order = torch.randperm(len(splits.test), generator=generator_for(cell.seed, "attacked"))
    test = splits.test.subset(order[: cell.test_samples])
    found = [
        {"trained_on": name, **_attacked(network, cell, test)} for name, network in _networks(saved, cell, splits, test)
    ]
    return make_record(KIND, settings, {"networks": found}, time.monotonic() - started)


def _networks(
    saved: SavedSet, cell: RobustnessSettings, splits: Splits, test: LabelledData
) -> Iterator[tuple[str, Network]]:
    """Trained on the set; on real data until it is as accurate; on real data to the end. All from the same weights."""
    synthetic, seed = saved.synthetic, derive_seed(cell.seed, "robustness")

    def fresh() -> Network:
        architecture = Architecture.parse(cell.architecture)
        return architecture.build(synthetic.sample_shape, synthetic.num_classes, seed=seed, device=cell.device)

    network = fresh()
    train_config = find_protocol(cell.protocol).train_config_for(splits.test, len(synthetic))
    fit(network, synthetic.inputs(), synthetic.labels, train_config, seed=seed)
    yield "the set", network
    goal, real = accuracy(network, test), splits.train
    for name, enough in (("real data, as accurate", goal), ("real data, whole", float("inf"))):
        network = fresh()
        stop = _Until(network, test, enough)
        fit(network, real.inputs(), real.labels, train_config_for(real), seed=seed, keep_going=stop)
        yield name, network


class _Until:
    """Says no once ``network`` is as accurate as ``enough``."""

    def __init__(self, network: Network, test: LabelledData, enough: float) -> None:
        self._network, self._test, self._enough, self._steps = network, test, enough, 0

    def __call__(self) -> bool:
        self._steps += 1
        if self._enough > 1 or self._steps % _LOOK_EVERY:
            return True
        reached = accuracy(self._network, self._test)
        self._network.train()
        return reached < self._enough


def _attacked(network: Network, cell: RobustnessSettings, test: LabelledData) -> dict[str, Any]:
    low, high = test.value_range
    attacks = [PGD(level / _LEVELS * (high - low), cell.steps) for level in cell.levels]
    found = [pgd.attack(network, test, seed=cell.seed) for pgd in attacks]
    return {
        "clean": accuracy(network, test),
        "adversarial": [one.accuracy for one in found],
        "losses": [list(one.losses) for one in found],
    }
