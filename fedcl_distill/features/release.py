"""Feature sums as whole numbers: added up in secret, and released once with noise (Dwork et al. 2006).

What adds up exactly (means, diagonals, whole and projected matrices) is one vector: counts, class sums and second
moments. Of features within the unit ball, one record changes counts by 1, and sums and second moments by at most 1 in
their Euclidean norm, so that Gaussian noise of one multiplier, divided among these blocks, hides it. Numbers are
rounded to a grid and noise is drawn in whole steps (:mod:`~fedcl_distill.privacy.noise`), of which many parties may
each add a share. Directions and cluster centres are no sums: they have no such release.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.errors import DataError, PayloadError, SettingsError
from fedcl_distill.features.storages import STORAGES, Diagonal, Full, Means, Projected, Storage, measure
from fedcl_distill.features.sums import FeatureSums, Gram, Sketch, Squares
from fedcl_distill.privacy import (
    MAX_STEPS,
    Guarantee,
    NoiseSource,
    PrivacyTarget,
    discrete_gaussian,
    guarantee_on_grid,
)
from fedcl_distill.registry import Plain, describe
from fedcl_distill.settings import check_integer
from fedcl_distill.statistics.fixed_point import Words

COUNTS, SUMS, SECOND = "counts", "sums", "second"
SHARES = {COUNTS: 0.04, SUMS: 0.64, SECOND: 0.32}
"""How a release divides its precision; where there are no second moments, the others are scaled up."""
_BITS = 32
_LARGEST = 2 ** (_BITS - 1) - 1
_TAIL = 12.0  # deviations that a total has room for
_MIN_DEVIATION = 16  # steps, of a share of the noise
_DEVIATIONS_OF_A_CLASS = 4.0  # a noisy count below so many of its deviations counts as none
_WITHIN = 1 - 1e-9  # of the unit ball: what floats round may not leave it


def admit_storage(storage: Storage | Plain) -> Storage:
    """The storage, if what it keeps adds up number by number.

    Raises:
        SettingsError: it does not: directions and centres say nothing when they are added.
    """
    built = STORAGES.build(storage)
    if not isinstance(built, Means | Diagonal | Full | Projected):
        raise SettingsError(
            f"{describe(built)} does not add up number by number, so that there is no secret sum and no noisy release "
            "of it; take means, diagonal, projected or full"
        )
    return built


def measure_within(data: LabelledData, storage: Storage) -> FeatureSums:
    """Sums of feature vectors, each shortened to the unit ball where it leaves it."""
    if data.is_image:
        raise DataError(f"{data.name} holds images; put them through a backbone first")
    rows = data.unit().double()
    rows = rows * (_WITHIN / rows.norm(dim=1, keepdim=True).clamp(min=_WITHIN))
    return measure(rows, data.labels, data.class_names, storage, backbone=data.spec.backbone)


@dataclass(frozen=True)
class SumWords:
    """How the sums of one party become words, and a total of words sums again.

    Words are unsigned numbers of 32 bits: counts, class sums and second moments in two's complement, as the nearest
    multiples of a step for each. Off-diagonal second moments travel once, times √2, so that the length of the vector
    is that of the matrix.

    Attributes:
        storage: of second moments.
        class_names: one name a class.
        dimensions: d, of features.
        backbone: fingerprint of what made them.
        parties: the most whose words are added.
        fewest: of them, whose words alone have all the noise of the release.
        max_samples: of one class at a party.
        target: ε and δ of the release; None adds no noise.

    Raises:
        SettingsError: on construction, if a number is out of range, or the storage does not add up.
    """

    storage: Storage
    class_names: tuple[str, ...]
    dimensions: int
    backbone: str = ""
    parties: int = 1
    fewest: int = 1
    max_samples: int = 10_000
    target: PrivacyTarget | None = None

    def __post_init__(self) -> None:
        admit_storage(self.storage)
        check_integer("parties", self.parties, 1, 2**20)
        check_integer("fewest", self.fewest, 1, self.parties)
        check_integer("max_samples", self.max_samples, 1, 2**31)
        if self.parties * self.max_samples >= _LARGEST:
            raise SettingsError(f"{self.parties} parties of up to {self.max_samples} samples a class do not fit words")

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """Of words."""
        return np.dtype("<u4")

    @property
    def length(self) -> int:
        """Words of one party."""
        return sum(math.prod(shape) for shape in self._shapes.values())

    def guarantee(self, *, seeded: bool = False) -> Guarantee | None:
        """Of a total of at least ``fewest`` words; None without noise.

        Raises:
            SettingsError: words are too coarse for this ε.
            DependencyError: dp-accounting is not installed.
        """
        if self.target is None:
            return None
        return guarantee_on_grid(self.target, self._numbers, self._units, self._steps, seeded=seeded)

    def words(self, sums: FeatureSums) -> Words:
        """(length,) of :attr:`dtype`: ``sums``, from :func:`measure_within`, without noise.

        Where there will be noise, what leaves its bounds is cut off: a refusal would tell of the records.

        Raises:
            DataError: there will be none, and a class has more samples than agreed.
        """
        if self.target is None and float(sums.counts.max()) > self.max_samples:
            raise DataError(f"a class has {sums.counts.max():g} samples, at most {self.max_samples} were agreed on")
        values, steps = _blocks(sums), self._steps
        whole = {
            name: (one.clamp(-self._most[name], self._most[name]) / steps[name]).round().long()
            for name, one in values.items()
        }
        # Two's complement: a conversion to unsigned words keeps the lowest bits.
        return torch.cat([one.flatten() for one in whole.values()]).numpy().astype(self.dtype)

    def noised(self, words: Words, source: NoiseSource | None = None) -> Words:
        """``words`` with a share of the noise, named by everything that goes into them.

        Raises:
            SettingsError: as for :meth:`guarantee`.
        """
        spread = self._share_deviations()
        source = (source or NoiseSource.fresh()).bound_to(repr(self), [torch.from_numpy(words.astype(np.int64))])
        noise = [discrete_gaussian(source, spread[name], shape, name).flatten() for name, shape in self._shapes.items()]
        added: Words = words + torch.cat(noise).numpy().astype(self.dtype)
        return added

    def total(self, words: Words, heard: int) -> FeatureSums:
        """The sums that a sum of the words of ``heard`` parties, modulo 2³², says.

        Raises:
            PayloadError: there are not so many words, or parties, or they are no sum of what honest parties send.
        """
        if words.dtype != self.dtype or words.shape != (self.length,):
            raise PayloadError(f"expected {self.length} words of {_BITS} bits, got {words.shape}")
        if not self.fewest <= heard <= self.parties:
            raise PayloadError(f"a total takes the words of {self.fewest} to {self.parties} parties, got {heard}")
        signed = torch.from_numpy(words.view("<i4").astype(np.float64))
        parts = torch.split(signed, [math.prod(shape) for shape in self._shapes.values()])  # type: ignore[no-untyped-call]
        steps = self._steps
        values = {
            name: part.view(shape) * steps[name]
            for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }
        deviations = self.deviations(heard)
        try:
            return self._sums(values, deviations)
        except DataError as error:
            raise PayloadError(f"the total is no sum of features: {error}") from error

    def deviations(self, heard: int) -> dict[str, float]:
        """Standard deviation of the noise in each block of a total of ``heard`` parties; 0 without noise."""
        guarantee = self.guarantee()
        if guarantee is None:
            return dict.fromkeys(self._shapes, 0.0)
        more = math.sqrt(heard / self.fewest)
        return {name: more * guarantee.deviation * unit for name, unit in self._units.items()}

    def _sums(self, values: Mapping[str, Tensor], spread: Mapping[str, float]) -> FeatureSums:
        """Sums that could have been exact; all of it follows from what was released, and so costs nothing."""
        counts = values[COUNTS].round()
        counts = torch.where(counts >= max(1.0, _DEVIATIONS_OF_A_CLASS * spread[COUNTS]), counts, 0.0)
        means = values[SUMS] / counts.clamp(min=1)[:, None] * (counts > 0)[:, None]
        means = means / means.norm(dim=1, keepdim=True).clamp(min=1)
        sums = FeatureSums(counts, means, None, self.class_names, self.backbone)
        if SECOND not in values:
            return sums
        if isinstance(self.storage, Diagonal):
            least = counts[:, None] * means.square()
            return _with(sums, Squares(torch.maximum(values[SECOND], least)))
        matrix = _unfolded(values[SECOND], self._seen)
        between = means.T @ (means * counts[:, None])
        within = _at_least(matrix - between, spread[SECOND] * math.sqrt(self._seen))
        if isinstance(self.storage, Projected):
            return _with(sums, Sketch(within + between, self.dimensions, self.storage.seed))
        return _with(sums, Gram(within + between))

    @property
    def _seen(self) -> int:
        """Dimensions that are summed."""
        return self.storage.dimensions if isinstance(self.storage, Projected) else self.dimensions

    @property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        classes, size = len(self.class_names), self._seen
        shapes: dict[str, tuple[int, ...]] = {COUNTS: (classes,), SUMS: (classes, size)}
        if isinstance(self.storage, Diagonal):
            shapes[SECOND] = (classes, size)
        elif not isinstance(self.storage, Means):
            shapes[SECOND] = (size * (size + 1) // 2,)
        return shapes

    @property
    def _numbers(self) -> dict[str, int]:
        """By block, how many numbers one record can change."""
        per_record = {COUNTS: 1, SUMS: self._seen, SECOND: math.prod(self._shapes.get(SECOND, (0,)))}
        if isinstance(self.storage, Diagonal):
            per_record[SECOND] = self._seen
        return {name: per_record[name] for name in self._shapes}

    @property
    def _units(self) -> dict[str, float]:
        """By block, the deviation of its noise for a noise multiplier of 1."""
        together = sum(SHARES[name] for name in self._shapes)
        return {name: math.sqrt(together / SHARES[name]) for name in self._shapes}

    @property
    def _most(self) -> dict[str, float]:
        """By block, the largest absolute value of one party: of second moments, all classes together."""
        samples = float(self.max_samples)
        summed = samples if isinstance(self.storage, Diagonal) else samples * len(self.class_names)
        return {name: summed if name == SECOND else samples for name in self._shapes}

    @property
    def _steps(self) -> dict[str, float]:
        """By block: the finest with which a total fits into a word, and a share of noise can be drawn."""
        largest = _LARGEST - self.parties
        if self.target is None:
            return {name: 1.0 if name == COUNTS else self.parties * one / largest for name, one in self._most.items()}
        # Twice the noise that is asked for before rounding: more than guarantee_on_grid admits.
        plain = 2 * self.target.guarantee(1.0).mechanism.noise_multiplier
        noise = {name: plain * unit for name, unit in self._units.items()}
        more = math.sqrt(self.parties / self.fewest)
        return {
            name: max(
                (self.parties * most + _TAIL * noise[name] * more) / largest,
                noise[name] / math.sqrt(self.fewest) / MAX_STEPS,
            )
            for name, most in self._most.items()
        }

    def _share_deviations(self) -> dict[str, int]:
        """Of a party's noise, in whole steps."""
        guarantee, steps = self.guarantee(), self._steps
        assert guarantee is not None
        share = guarantee.deviation / math.sqrt(self.fewest)
        found = {name: math.ceil(share * unit / steps[name]) for name, unit in self._units.items()}
        if min(found.values()) < _MIN_DEVIATION:
            raise SettingsError("privacy: a share of the noise is too small beside its step; lower max_samples")
        return found


def _with(sums: FeatureSums, second: Squares | Gram) -> FeatureSums:
    return FeatureSums(sums.counts, sums.means, second, sums.class_names, sums.backbone)


def _blocks(sums: FeatureSums) -> dict[str, Tensor]:
    values = {COUNTS: sums.counts, SUMS: sums.means * sums.counts[:, None]}
    if isinstance(sums.second, Squares):
        values[SECOND] = sums.second.squares
    elif isinstance(sums.second, Gram):
        values[SECOND] = _folded(sums.second.matrix)
    return values


def _folded(matrix: Tensor) -> Tensor:
    """(k(k+1)/2,): a symmetric (k, k) matrix as a vector of the same length."""
    rows, columns = torch.tril_indices(len(matrix), len(matrix))
    return matrix[rows, columns] * torch.where(rows == columns, 1.0, math.sqrt(2))


def _unfolded(vector: Tensor, size: int) -> Tensor:
    """The inverse of :func:`_folded`."""
    rows, columns = torch.tril_indices(size, size)
    matrix = torch.zeros(size, size, dtype=vector.dtype)
    matrix[rows, columns] = vector / torch.where(rows == columns, 1.0, math.sqrt(2))
    return matrix + matrix.tril(-1).T


def _at_least(matrix: Tensor, least: float) -> Tensor:
    """The symmetric matrix with no eigenvalue below ``least``: what noise hides is as large as the noise."""
    if least == 0:
        return matrix
    energies, vectors = torch.linalg.eigh(matrix)
    raised: Tensor = (vectors * energies.clamp(min=least)) @ vectors.T
    return raised
