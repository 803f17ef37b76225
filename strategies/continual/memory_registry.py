"""Memories by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fedcl_distill.data import LabelledData
from fedcl_distill.engine import Budget, ByteBudget, CoreSet, Distiller, quantisation_aware
from fedcl_distill.engine.size import bytes_of_counts, counts_within_bytes
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.methods.private_statistics import private_statistics
from fedcl_distill.parameterizations import Parameterization, Pixels
from fedcl_distill.seeding import derive_seed
from fedcl_distill.selection import Herding, Random
from fedcl_distill.specs import read_spec
from strategies.continual.distilled_memory import CondensedMemory, DistilledMemory, PrivateMemory
from strategies.continual.memory import HybridMemory, Memory, ReservoirMemory
from strategies.continual.settings import ContinualSettings

_CONDENSING_STEPS = 10
_FAITHFUL_BITS = 8
"""From here on rounding is too fine for a distillation to mind."""


def reservoir(settings: ContinualSettings, byte_budget: int) -> ReservoirMemory:
    """A uniform sample of all that was seen."""
    return ReservoirMemory(byte_budget, settings.bits, seed=_seed(settings))


def balanced(settings: ContinualSettings, byte_budget: int, *, final_shares: bool = False) -> DistilledMemory:
    """Random real samples, equally many of each class."""
    return exemplars(settings, byte_budget, CoreSet(Random()), final_shares=final_shares)


def herding(settings: ContinualSettings, byte_budget: int, *, final_shares: bool = False) -> DistilledMemory:
    """Real samples chosen by herding in the space of inputs, equally many of each class."""
    return exemplars(settings, byte_budget, CoreSet(Herding()), final_shares=final_shares)


def exemplars(
    settings: ContinualSettings, byte_budget: int, core_set: CoreSet, *, final_shares: bool = False
) -> DistilledMemory:
    """Real samples that a core set chooses, the best first; those that come last make room."""
    return DistilledMemory(
        byte_budget,
        settings.bits,
        distiller=core_set,
        seed=_seed(settings),
        redistil=False,
        final_shares=final_shares,
    )


def distilled(settings: ContinualSettings, byte_budget: int, *, final_shares: bool = False) -> DistilledMemory:
    """Made by the settings' method."""
    return DistilledMemory(
        byte_budget,
        settings.bits,
        distiller=_method(settings),
        budget=Budget.if_given(settings.distil_steps, settings.distil_seconds),
        seed=_seed(settings),
        redistil=settings.redistil,
        final_shares=final_shares,
    )


def hybrid(settings: ContinualSettings, byte_budget: int, *, real_share: float = 0.5) -> HybridMemory:
    """Random real samples in ``real_share`` of the bytes, distilled ones in the rest."""
    if not 0 < real_share < 1:
        raise SettingsError(f"real_share must be between 0 and 1, got {real_share}")
    real = int(real_share * byte_budget)
    return HybridMemory((balanced(settings, real), distilled(settings, byte_budget - real)))


def condensed(
    settings: ContinualSettings, byte_budget: int, *, buffer_size: int = 32, buffer_share: float = 0.5
) -> CondensedMemory:
    """Distilled as samples pass, a few steps each time."""
    steps = _CONDENSING_STEPS if settings.distil_seconds is None else None
    return CondensedMemory(
        byte_budget,
        settings.bits,
        distiller=_method(settings),
        budget=Budget.if_given(settings.distil_steps or steps, settings.distil_seconds),
        buffer_size=buffer_size,
        buffer_share=buffer_share,
        seed=_seed(settings),
    )


def private(
    settings: ContinualSettings, byte_budget: int, *, epsilon: float = 4.0, views: int = 8, disjoint: bool = False
) -> PrivateMemory:
    """Distilled from one noisy release of each experience, (``epsilon``, 1e-5)-differentially private each.

    ``disjoint`` states that no record is in two experiences, so that all of them together have that, too.

    Raises:
        SettingsError: it is stated of a stream whose records come back in another domain.
    """
    if disjoint and settings.scenario == "domain":
        raise SettingsError("private: in a domain scenario records come back; they are not disjoint")
    return PrivateMemory(
        byte_budget,
        settings.bits,
        method=private_statistics(epsilon=epsilon, views=views),
        disjoint=disjoint,
        budget=Budget.if_given(settings.distil_steps, settings.distil_seconds),
        seed=_seed(settings),
    )


MEMORIES: dict[str, Callable[..., Memory]] = {
    "reservoir": reservoir,
    "balanced": balanced,
    "herding": herding,
    "distilled": distilled,
    "hybrid": hybrid,
    "condensed": condensed,
    "private": private,
}


def named_memory(text: str, settings: ContinualSettings, byte_budget: int) -> Memory:
    """The memory that ``text`` names, such as "reservoir" or "hybrid:real_share=0.3", empty.

    Raises:
        SettingsError: the memory, its method or a setting is unknown or out of range.
    """
    known = {name: partial(builder, settings, byte_budget) for name, builder in MEMORIES.items()}
    return read_spec("memory", text, known)


def memory_bytes(settings: ContinualSettings, like: LabelledData) -> int:
    """The byte budget: as given, or what ``images_per_class`` samples of every class take."""
    if settings.byte_budget is not None:
        return settings.byte_budget
    return bytes_of_counts([settings.images_per_class] * like.num_classes, like, settings.bits)


def bytes_beside_scores(settings: ContinualSettings, like: LabelledData, memory: str) -> int:
    """What is left to a memory where each of its samples has a byte for the score of every class, and 8 in all.

    Raises:
        SettingsError: a single sample and its scores do not fit.
    """
    budget, classes = memory_bytes(settings, like), like.num_classes
    how, soft = _stored_as(settings, memory)
    value_bytes = like.unit(slice(0, 1)).numel() * settings.bits / 8
    spare = int((2 * classes + 16) / value_bytes) + 1  # samples that uneven counts of classes may make room for

    def samples_and_bytes(allowance: int) -> tuple[int, int]:
        size = ByteBudget(allowance, settings.bits)
        counts = counts_within_bytes(size, like, how, [budget] * classes, soft_labels=soft)
        decoded = sum(how.decoded_counts(counts, like.sample_shape))
        return decoded, bytes_of_counts(counts, like, settings.bits, how, soft_labels=soft)

    low, high = 0, budget
    while low < high:
        middle = (low + high + 1) // 2
        try:
            samples, taken = samples_and_bytes(middle)
        except SettingsError:
            samples, taken = -spare, 0  # not a single sample fits, but more bytes may hold one
        if taken + (samples + spare) * classes + 8 <= budget:
            low = middle
        else:
            high = middle - 1
    return samples_and_bytes(low)[1]


def _stored_as(settings: ContinualSettings, memory: str) -> tuple[Parameterization, bool]:
    if memory.partition(":")[0] not in ("distilled", "hybrid"):
        return Pixels(), False
    method = _method(settings)
    return method.parameterization, method.labels.soft


def _method(settings: ContinualSettings) -> Distiller:
    """The method; below 8 bits it distils with values rounded as the memory will keep them."""
    method = build_method(settings.method, **settings.method_settings)
    return quantisation_aware(method, settings.bits) if settings.bits < _FAITHFUL_BITS else method


def _seed(settings: ContinualSettings) -> int:
    return derive_seed(settings.seed, "memory")
