"""Anybody's sets beside what is simple: real samples of as many bytes, chosen, compressed, or labelled by a teacher."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedcl_distill.data import LabelledData, Normalisation
from fedcl_distill.engine import ByteBudget, CoreSet, Distiller
from fedcl_distill.errors import FedclDistillError, SettingsError
from fedcl_distill.labels import TeacherLabels
from fedcl_distill.methods import build_method
from fedcl_distill.selection import Random
from fedcl_distill.settings import Count, settings
from fedcl_distill.synthetic import SyntheticSet, decode, encode, load, read_foreign, save
from fedcl_distill.synthetic.quantise import Bits
from simulations.data import load_splits
from simulations.formats import byte_size
from simulations.running.progress import Watcher
from simulations.running.runs import settings_key
from simulations.settings import without_places

CHOSEN = ("random", "herding", "compressed")
"""Methods that hand on real samples, which stand beside every set."""


@settings
class ForeignSettings:
    """How files of sets are read, and what stands beside them.

    Attributes:
        data: name of the real data, or path.
        data_root: folder to search first; a place on this computer.
        labels: file of the labels, where they are in one of their own that is not named like the images'.
        mean: of each channel, with commas between, by which stored images are normalised; by default as the data are
            here. 0 and a deviation of 1 stand for pixels in [0, 1].
        std: of each channel. For CIFAR-10 many authors take the deviations 0.2023,0.1994,0.2010.
        tiles: along each side of a stored image (IDC: 2).
        bits: in which values are stored, of the sets and of what stands beside them.
        teacher: network whose labels random samples get; by default a ConvNet of width 64, an MLP for features.
        device: where it is trained.
        seed: of what is drawn beside the sets.

    Raises:
        SettingsError: on construction, if a value is out of range, or only one of mean and std is given.
    """

    data: str
    data_root: str | None = None
    labels: str | None = None
    mean: str | None = None
    std: str | None = None
    tiles: Count = 1
    bits: Bits = 8
    teacher: str | None = None
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise SettingsError("ForeignSettings: mean and std go together")
        _ = self.normalisation

    @property
    def normalisation(self) -> Normalisation | None:
        """Of the stored images, where it is not that of the data."""
        if self.mean is None or self.std is None:
            return None
        return Normalisation(_numbers("mean", self.mean), _numbers("std", self.std))

    def read(self, path: Path, real: LabelledData) -> SyntheticSet:
        """The set at ``path``: one of ours, or of another project; errors as of the two readers."""
        if path.suffix != ".pt":
            return load(path)
        return read_foreign(path, real.spec, labels=self.labels, normalisation=self.normalisation, factor=self.tiles)


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError as error:
        raise SettingsError(f"ForeignSettings: {name} must be numbers with commas between, got {text!r}") from error


def sets_to_judge(paths: Sequence[Path], how: ForeignSettings, out: Path, watcher: Watcher) -> list[Path]:
    """Each set as it is stored in ``how.bits``, and beside it real samples of as many bytes; files below ``out``.

    Raises:
        SettingsError, DataError, PayloadError, StorageError: a set cannot be read, or does not fit the data.
    """
    splits = load_splits(how.data, root=how.data_root)
    found: list[Path] = []
    with watcher.stage(f"real samples beside {len(paths)} sets") as stage:
        for place, path in enumerate(paths):
            own = how.read(path, splits.train)
            payload = encode(own, how.bits, provenance=False)
            folder = out / "judged" / f"{path.stem}-{settings_key('judged', _told(how, payload))[:12]}"
            if not folder.exists():  # it appears whole
                _write(
                    folder, [(path.stem, own), *_beside(len(payload), splits.train, how, watcher)], len(payload), how
                )
            found += sorted(folder.iterdir())
            stage.update((place + 1) / len(paths))
    return found


def _told(how: ForeignSettings, payload: bytes) -> dict[str, Any]:
    return {**without_places(asdict(how)), "set": hashlib.sha256(payload).hexdigest()}


def _write(folder: Path, sets: Iterable[tuple[str, SyntheticSet]], size: int, how: ForeignSettings) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as place:
        for name, one in sets:
            told = {"method": f"{name}, {byte_size(size)}", "data": how.data}
            target = Path(place) / "sets" / f"{name.replace(' ', '-')}.safetensors"
            stored = decode(encode(one, how.bits))
            save(replace(stored, provenance={**one.provenance, **told}), target)
        (Path(place) / "sets").rename(folder)


def _beside(
    size: int, real: LabelledData, how: ForeignSettings, watcher: Watcher
) -> Iterator[tuple[str, SyntheticSet]]:
    """Real samples in at most ``size`` bytes; what does not fit or suit the data is noted."""
    budget = ByteBudget(size, how.bits)
    ways: dict[str, Distiller] = {name: build_method(name) for name in CHOSEN}
    ways["random with a teacher's labels"] = CoreSet(Random(), TeacherLabels(architecture=how.teacher))
    for name, method in ways.items():
        try:
            yield name, method.distil(real, budget, seed=how.seed, device=how.device)
        except FedclDistillError as error:
            watcher.note(f"{name} in {byte_size(size)}: {error}")
