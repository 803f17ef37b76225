"""Where noise comes from: exact, on a grid, on a public scale."""

from __future__ import annotations

import hashlib
import math
import os
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.data.spec import Normalisation
from fedcl_distill.errors import CheckpointError, SettingsError, StorageError
from fedcl_distill.files import write_atomically
from fedcl_distill.privacy.accounting import RESERVE, Guarantee, PrivacyTarget, noise_multiplier_for
from fedcl_distill.seeding import derive_seed
from fedcl_distill.settings import check_integer

MAX_STEPS = 2**20
"""The largest deviation, in steps: with it, all products below fit into 63 bits."""

Whole = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def discrete_gaussian(source: NoiseSource, deviation: int, shape: Sequence[int], *path: str | int) -> Tensor:
    """int64 of this shape: values of the discrete Gaussian, of the draw named ``path``.

    Args:
        source: of randomness.
        deviation: σ, a whole number in [1, 2^20]. Above 2 it is the standard deviation as well, to eight digits.
        shape: of what is returned.
        path: names the draw.

    Raises:
        SettingsError: ``deviation`` is out of range.
    """
    check_integer("deviation", deviation, 1, MAX_STEPS)
    draws = _Draws(source, path)

    def propose(count: int) -> tuple[Whole, Flags]:
        found = _laplace(draws, deviation, count)
        return found, _exp_minus(draws, (np.abs(found) - deviation) ** 2, 2 * deviation**2)

    return torch.from_numpy(_until_kept(math.prod(shape), propose)).view(tuple(shape))


def difference_of_whole_noise(count: int, deviation: float) -> float:
    """By how much the logarithm of the probability of so many numbers differs from that of rounded Gaussian ones.

    Args:
        count: how many numbers.
        deviation: of each, in steps.
    """
    return (3 * count + 180) / (24 * deviation**2)


def _until_kept(count: int, propose: Callable[[int], tuple[Whole, Flags]]) -> Whole:
    """(count,): rejection sampling. ``propose`` gives so many values and which of them are kept; others are redrawn."""
    values, missing = np.empty(count, np.int64), np.arange(count)
    while len(missing):
        found, keep = propose(len(missing))
        values[missing[keep]] = found[keep]
        missing = missing[~keep]
    return values


class _Draws:
    """Whole random numbers, one after the other."""

    def __init__(self, source: NoiseSource, path: Sequence[str | int]) -> None:
        self._source, self._path, self._count = source, path, 0

    def below(self, high: int, count: int) -> Whole:
        """(count,) uniform in [0, high), by rejection of what is not below it."""

        def propose(count: int) -> tuple[Whole, Flags]:
            found = self._bits((high - 1).bit_length(), count)
            return found, found < high

        return _until_kept(count, propose)

    def _bits(self, bits: int, count: int) -> Whole:
        self._count += 1
        words = self._source.words(count, *self._path, self._count)
        return (words >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(count, np.int64)


def _laplace(draws: _Draws, scale: int, count: int) -> Whole:
    """(count,) with probability proportional to exp(-|x| / scale)."""

    def propose(count: int) -> tuple[Whole, Flags]:
        low = draws.below(scale, count)
        keep = _exp_minus(draws, low, scale)
        size = low + scale * _geometric(draws, count)
        negative = draws.below(2, count) == 1
        keep &= ~(negative & (size == 0))  # zero would come twice as often
        return np.where(negative, -size, size), keep

    return _until_kept(count, propose)


def _geometric(draws: _Draws, count: int) -> Whole:
    """(count,): how often in a row something of probability 1/e happens."""
    values, going = np.zeros(count, np.int64), np.arange(count)
    while len(going):
        going = going[_exp_minus_fraction(draws, np.ones(len(going), np.int64), 1)]
        values[going] += 1
    return values


def _exp_minus(draws: _Draws, numerators: Whole, denominator: int) -> Flags:
    """True with probability exp(-numerator / denominator), for each numerator ≥ 0."""
    whole, rest = np.divmod(numerators, denominator)
    result = _exp_minus_fraction(draws, rest, denominator)
    going = np.flatnonzero(result & (whole > 0))
    while len(going):
        again = _exp_minus_fraction(draws, np.ones(len(going), np.int64), 1)
        result[going[~again]] = False
        whole[going] -= 1
        going = going[again & (whole[going] > 0)]
    return result


def _exp_minus_fraction(draws: _Draws, numerators: Whole, denominator: int) -> Flags:
    """The same for fractions γ in [0, 1]: trials of chance γ/1, γ/2, γ/3 … succeed an even number of times in a row."""
    successes, going = np.zeros(len(numerators), np.int64), np.arange(len(numerators))
    trial = 0
    while len(going):
        trial += 1
        success = draws.below(denominator, len(going)) < numerators[going]
        success &= draws.below(trial, len(going)) == 0
        going = going[success]
        successes[going] += 1
    even: Flags = successes % 2 == 0
    return even


_MAX_BOUND = 2.0


def guarantee_on_grid(
    target: PrivacyTarget,
    numbers: Mapping[str, int],
    units: Mapping[str, float],
    steps: Mapping[str, float],
    *,
    seeded: bool = False,
) -> Guarantee:
    """What holds once every number was rounded to its block's step, and got whole noise of deviation ``bound`` · σ.

    Rounding changes the difference of two neighbours by at most a step in each number that they differ in, so that
    the sensitivity of 1 grows by the length of these steps. What whole noise differs from rounded Gaussian noise (see
    :mod:`~fedcl_distill.privacy.noise`) is paid from a thousandth of ε, kept for it. Both are in ``bound``.

    Args:
        target: ε and δ of one release.
        numbers: by block, how many a record may change.
        units: by block, the deviation of its noise for a noise multiplier of 1, where nothing is rounded.
        steps: by block.
        seeded: the noise follows from a seed that others may know.

    Raises:
        SettingsError: the steps are too coarse for this ε.
    """
    rounding = math.sqrt(sum(count * (steps[name] / units[name]) ** 2 for name, count in numbers.items()))
    noise = noise_multiplier_for(target.epsilon * (1 - RESERVE), target.delta) * (1 + rounding)
    deviations = {name: noise * units[name] / steps[name] for name in numbers}  # in steps
    difference = 2 * sum(difference_of_whole_noise(count, deviations[name]) for name, count in numbers.items())
    if 1 + rounding > _MAX_BOUND or difference > RESERVE * target.epsilon:
        raise SettingsError(f"privacy: numbers are rounded too coarsely for epsilon {target.epsilon:g}; take more bits")
    plain = target.guarantee(1.0, seeded=seeded)
    return target.guarantee(noise / plain.mechanism.noise_multiplier, seeded=seeded)


_KEY_BYTES = 32


@dataclass(frozen=True)
class NoiseSource:
    """Random numbers below one key.

    Attributes:
        key: 32 bytes; not shown.
        secret: it came from the operating system, not from a seed.
    """

    key: bytes = field(repr=False)
    secret: bool

    @classmethod
    def fresh(cls) -> NoiseSource:
        """A new secret one."""
        return cls(secrets.token_bytes(_KEY_BYTES), True)

    @classmethod
    def seeded(cls, seed: int) -> NoiseSource:
        """The same for every run of this seed: for tests, and worth nothing as protection."""
        return cls(hashlib.sha256(str(derive_seed(seed, "privacy noise")).encode()).digest(), False)

    @classmethod
    def kept(cls, path: str | os.PathLike[str], origin: str) -> NoiseSource:
        """The secret one in the file at ``path``, or a fresh one that is written there, readable by its owner alone.

        A run that resumes so repeats its noise. ``origin`` names everything that goes into its releases (data and their
        scale, mechanism, ε, δ, settings): a key goes on with the same releases alone.

        Raises:
            CheckpointError: the file is damaged, or belongs to other releases.
            StorageError: it could not be read or written.
        """
        file = Path(path).expanduser()
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            source = cls.fresh()
            write_atomically(file, source.key + source._seal(origin), secret=True)
            return source
        except OSError as error:
            raise StorageError(f"could not read {file}: {error.strerror or error}") from error
        source = cls(content[:_KEY_BYTES], True)
        if len(content) != 2 * _KEY_BYTES or content[_KEY_BYTES:] != source._seal(origin):
            raise CheckpointError(
                f"noise in {file} is damaged or belongs to another release (other data, scale, ε, δ, size, steps, seed "
                "or settings); remove it and the checkpoint beside it to restart with fresh noise"
            )
        return source

    def bound_to(self, origin: str, values: Iterable[Tensor]) -> NoiseSource:
        """The source for one release alone: its noise is named by ``origin`` and by every bit of ``values``.

        Two releases that differ in anything that is given here have no noise in common, though they come from one key;
        the same release repeats itself. So no two outputs can be solved for what noise hides. Noise from a known seed
        hides nothing, and stays as the seed has it.
        """
        if not self.secret:
            return self
        digest = hashlib.sha256(b"bound" + self.key + hashlib.sha256(origin.encode()).digest())
        for one in values:
            digest.update(repr((one.dtype, tuple(one.shape))).encode())
            digest.update(one.detach().cpu().contiguous().numpy().data)
        return NoiseSource(digest.digest(), True)

    def name(self, origin: str) -> str:
        """Names the release that ``origin`` describes without telling of it: equal names, equal releases."""
        return hashlib.sha256(b"name" + self.key + origin.encode()).hexdigest()[:32]

    def words(self, count: int, *path: str | int) -> npt.NDArray[np.uint64]:
        """uint64 (count,): random bits of the draw named ``path``."""
        named = self.key + "/".join(map(str, path)).encode()
        return np.frombuffer(hashlib.shake_256(named).digest(8 * count), "<u8")

    def uniform(self, count: int, *path: str | int) -> Tensor:
        """float64 (count,) strictly between 0 and 1, of the draw named ``path``: odd multiples of 2**-53."""
        bits = self.words(count, *path) >> np.uint64(12)
        return torch.from_numpy((bits.astype(np.float64) + 0.5) * 2.0**-52)

    def normal(self, shape: Sequence[int], *path: str | int) -> Tensor:
        """float64 of this shape: standard normal values of the draw named ``path``."""
        values: Tensor = torch.special.ndtri(self.uniform(math.prod(shape), *path))
        return values.view(tuple(shape))

    def _seal(self, origin: str) -> bytes:
        return hashlib.sha256(b"seal" + self.key + origin.encode()).digest()


def publicly_scaled(
    data: LabelledData,
    normalisation: Normalisation | None = None,
    value_range: tuple[float, float] | None = None,
) -> LabelledData:
    """``data`` with a normalisation and a value range that do not follow from them.

    Pixels of 8 bits have a public range, [0, 1]. Other data need a ``value_range`` that is known without looking at
    them (from a manual, a law of nature, public data of the same kind); their values are clamped into it. Without a
    ``normalisation``, which must be public as well, the range is mapped to [-1, 1].

    Raises:
        SettingsError: data that are no images of 8 bits come without a range, or the range is empty.
        DataError: the normalisation has another number of channels.
    """
    pixels = data.samples.dtype == torch.uint8
    if pixels:
        value_range = (0.0, 1.0)
    if value_range is None:
        raise SettingsError(
            f"{data.name}: the range of such data was measured on them, and their mean and deviation, which would "
            "reveal them; private methods need a public range (public_range), or images of 8 bits"
        )
    low, high = value_range
    if not low < high:
        raise SettingsError(f"a value range must ascend, got [{low}, {high}]")
    if normalisation is None:
        channels = data.samples.shape[1]
        normalisation = Normalisation(((low + high) / 2,) * channels, ((high - low) / 2,) * channels)
    samples = data.samples if pixels else data.samples.clamp(low, high)
    return replace(data, samples=samples, spec=replace(data.spec, normalisation=normalisation, value_range=value_range))
