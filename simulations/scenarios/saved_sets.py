"""Saved sets judged by several kinds of networks, and networks trained on them under attack."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fedcl_distill.data import LabelledData, Splits
from fedcl_distill.errors import SettingsError
from fedcl_distill.evaluation import Protocol, evaluate, find_protocol, real_accuracy, score
from fedcl_distill.evaluation.scores import PGD
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.settings import Count, settings
from fedcl_distill.synthetic import SyntheticSet, load
from fedcl_distill.training import accuracy, fit, train_config_for
from simulations.data import load_splits
from simulations.running.progress import Silent, Watcher
from simulations.running.runs import (
    RESULTS,
    Kind,
    Record,
    append_record,
    finished_keys,
    make_record,
    read_records,
    settings_key,
)
from simulations.settings import ProtocolName, without_places

ARCHITECTURES = ("convnet:width=64", "convnet:width=128", "mlp", "lenet", "resnet18", "vgg11", "alexnet")


@settings
class CrossSettings:
    """How a saved set is judged.

    Attributes:
        architecture: of the networks that judge, such as ``resnet18``.
        protocol: by which they are trained: ``field`` is the literature's, ``fast`` is for small machines.
        networks: how many of each architecture; the protocol's number by default.
        data: name of the real data, or path; by default what the set says it was made from.
        data_root: folder to search first; a place on this computer, and no part of a result's settings.
        device: where to compute, such as cpu or cuda.
        seed: fixes weights, batch order and augmentation.

    Raises:
        SettingsError: on construction, if a value is out of range or unknown.
    """

    architecture: str = "convnet:width=64"
    protocol: ProtocolName = "fast"
    networks: Count | None = None
    data: str | None = None
    data_root: str | None = None
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        Architecture.parse(self.architecture)


@dataclass(frozen=True)
class SavedSet:
    """A set in a file.

    Attributes:
        path: of the file.
        digest: of its content, so that a result belongs to the set and not to a place.
        synthetic: the set.
    """

    path: Path
    digest: str
    synthetic: SyntheticSet

    @classmethod
    def read(cls, path: Path) -> SavedSet:
        """Load the set at ``path``."""
        return cls(path, hashlib.sha256(path.read_bytes()).hexdigest()[:16], load(path))

    @property
    def method(self) -> str:
        return str(self.synthetic.provenance.get("method", self.path.stem))

    def data(self, given: str | None) -> str:
        """Name of the real data to judge with.

        Raises:
            SettingsError: neither the caller nor the set names one.
        """
        name = given or self.synthetic.provenance.get("data")
        if not isinstance(name, str):
            raise SettingsError(f"{self.path} does not say what it was made from; name the data")
        return name


def find_sets(places: Iterable[Path]) -> list[Path]:
    """Files of sets: those given, and those that the results in given folders or ``.jsonl`` files name.

    Raises:
        SettingsError: a place is no set, no results and no folder with results.
    """
    found: dict[Path, None] = {}
    for place in places:
        results = place / RESULTS if place.is_dir() else place
        if not results.exists():
            raise SettingsError(f"there is neither a set nor results at {place}")
        if results.suffix != ".jsonl":
            found[results] = None
            continue
        for record in read_records(results):
            name = (record["metrics"].get("files") or {}).get("set")
            if record["kind"] == Kind.DISTIL and name is not None and (results.parent / name).exists():
                found[results.parent / name] = None
    return list(found)


def compare_architectures(
    paths: Sequence[Path],
    cells: Sequence[CrossSettings],
    results_path: str | os.PathLike[str],
    watcher: Watcher | None = None,
) -> list[Record]:
    """Judge every set by every cell; append what ``results_path`` does not hold yet and return all of it.

    An architecture that cannot read the samples is noted and left out.
    """
    watcher, keys, loaded = watcher or Silent(), [], _Data()
    with watcher.stage(f"{len(paths)} sets by {len(cells)} ways of judging") as stage:
        for place, saved in enumerate(map(SavedSet.read, paths)):
            for position, cell in enumerate(cells):
                settings = _named(saved, cell, cell.architecture)
                if not _fits(cell, saved.synthetic):
                    watcher.note(f"{cell.architecture} cannot read the samples of {saved.path.name}")
                    continue
                keys.append(settings_key(Kind.CROSS_ARCHITECTURE, settings))
                if keys[-1] not in finished_keys(results_path):
                    append_record(results_path, _judge(saved, cell, settings, loaded.get(settings["data"], cell)))
                stage.update((place + (position + 1) / len(cells)) / len(paths), str(settings["method"]))
    wanted = set(keys)
    return [record for record in read_records(results_path) if record["key"] in wanted]


def score_sets(
    paths: Sequence[Path],
    cells: Sequence[CrossSettings],
    results_path: str | os.PathLike[str],
    watcher: Watcher | None = None,
) -> list[Record]:
    """Both scores of DD-Ranking for every set, by the network of each distinct protocol; what is there is not redone.

    The accuracy on all real data, which costs most, is computed once for each data set and kept among the results.
    """
    watcher, keys, loaded = watcher or Silent(), [], _Data()
    ways = list({_way(cell): cell for cell in cells}.values())
    with watcher.stage(f"scores of {len(paths)} sets") as stage:
        for place, saved in enumerate(map(SavedSet.read, paths)):
            for cell in ways:
                settings = _named(saved, cell, None)
                keys.append(settings_key(Kind.SCORES, settings))
                if keys[-1] not in finished_keys(results_path):
                    splits = loaded.get(settings["data"], cell)
                    real = _real_accuracy(settings["data"], cell, splits, results_path)
                    append_record(results_path, _score(saved, cell, settings, splits, real))
            stage.update((place + 1) / len(paths))
    wanted = set(keys)
    return [record for record in read_records(results_path) if record["key"] in wanted]


class _Data:
    """Real data, loaded once."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, str | None], Splits] = {}

    def get(self, name: str, cell: CrossSettings) -> Splits:
        place = (name, cell.data_root)
        if place not in self._loaded:
            self._loaded[place] = load_splits(name, root=cell.data_root)
        return self._loaded[place]


def _way(cell: CrossSettings) -> tuple[Any, ...]:
    return (cell.protocol, cell.networks, cell.data, cell.device, cell.seed)


def _named(saved: SavedSet, cell: CrossSettings, architecture: str | None) -> dict[str, Any]:
    """JSON values that name one judgement."""
    settings = without_places(asdict(cell))
    samples = len(saved.synthetic)
    named = {"set": saved.digest, "file": saved.path.name, "method": saved.method, "samples": samples}
    return {**settings, **named, "data": saved.data(cell.data), "architecture": architecture}


def _fits(cell: CrossSettings, synthetic: SyntheticSet) -> bool:
    try:
        Architecture.parse(cell.architecture).build(synthetic.sample_shape, synthetic.num_classes, seed=0)
    except SettingsError:
        return False
    return True


def _judge(saved: SavedSet, cell: CrossSettings, settings: dict[str, Any], splits: Splits) -> Record:
    started = time.monotonic()
    judgement = evaluate(
        saved.synthetic,
        splits.test,
        _protocol(cell),
        seed=cell.seed,
        architecture=Architecture.parse(cell.architecture),
        networks=cell.networks,
        device=cell.device,
    )
    return make_record(Kind.CROSS_ARCHITECTURE, settings, judgement.as_record(), time.monotonic() - started)


def _score(saved: SavedSet, cell: CrossSettings, settings: dict[str, Any], splits: Splits, real: float) -> Record:
    started = time.monotonic()
    scores = score(
        saved.synthetic,
        splits,
        _protocol(cell),
        seed=cell.seed,
        real_hard=real,
        networks=cell.networks,
        device=cell.device,
    )
    return make_record(Kind.SCORES, settings, scores.as_record(), time.monotonic() - started)


def _real_accuracy(data: str, cell: CrossSettings, splits: Splits, results_path: str | os.PathLike[str]) -> float:
    architecture = str(_protocol(cell).architecture_for(splits.train))
    settings = {"data": data, "architecture": architecture, "seed": cell.seed, "device": cell.device}
    key, started = settings_key(Kind.REAL_ACCURACY, settings), time.monotonic()
    for record in read_records(results_path):
        if record["key"] == key:
            return float(record["metrics"]["accuracy"])
    accuracy = real_accuracy(splits, _protocol(cell), seed=cell.seed, device=cell.device)
    append_record(
        results_path, make_record(Kind.REAL_ACCURACY, settings, {"accuracy": accuracy}, time.monotonic() - started)
    )
    return accuracy


def _protocol(cell: CrossSettings) -> Protocol:
    return find_protocol(cell.protocol)


_LEVELS = 255  # of a pixel: the unit of epsilon
_LOOK_EVERY = 5  # steps between looks at the accuracy


@settings
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
    protocol: ProtocolName = "quick"
    levels: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    steps: Count = 20
    test_samples: Count = 1000
    data: str | None = None
    data_root: str | None = None
    train_limit: Count | None = None
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        Architecture.parse(self.architecture)
        if not self.levels:
            raise SettingsError("robustness needs at least one level")
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
                settings = _robustness_named(saved, cell)
                keys.append(settings_key(Kind.ROBUSTNESS, settings))
                if keys[-1] not in finished_keys(results_path):
                    splits = load_splits(
                        settings["data"], root=cell.data_root, train_limit=cell.train_limit, seed=cell.seed
                    )
                    append_record(results_path, _measure(saved, cell, settings, splits))
            stage.update((place + 1) / len(paths), saved.method)
    return [record for record in read_records(results_path) if record["key"] in set(keys)]


def _robustness_named(saved: SavedSet, cell: RobustnessSettings) -> dict[str, Any]:
    settings = without_places(asdict(cell))
    named = {"set": saved.digest, "file": saved.path.name, "method": saved.method, "levels": list(cell.levels)}
    return {**settings, **named, "data": saved.data(cell.data)}


def _measure(saved: SavedSet, cell: RobustnessSettings, settings: dict[str, Any], splits: Splits) -> Record:
    started = time.monotonic()
    order = torch.randperm(len(splits.test), generator=generator_for(cell.seed, "attacked"))
    test = splits.test.subset(order[: cell.test_samples])
    found = [
        {"trained_on": name, **_attacked(network, cell, test)} for name, network in _networks(saved, cell, splits, test)
    ]
    return make_record(Kind.ROBUSTNESS, settings, {"networks": found}, time.monotonic() - started)


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
