"""Memories by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fedcl_distill.data import LabelledData
from fedcl_distill.engine import Budget, ByteBudget, CoreSet, Distiller, quantisation_aware
from fedcl_distill.engine.size import bytes_of_counts, counts_within_bytes
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.methods.private import private_statistics
from fedcl_distill.parameterizations import Parameterization, Pixels
from fedcl_distill.registry import parse
from fedcl_distill.seeding import derive_seed
from fedcl_distill.selection import Herding, Random
from fedcl_distill.settings import Count, Momentum, Positive, Range, checked
from strategies.continual.distilled_memory import CondensedMemory, DistilledMemory, PrivateMemory
from strategies.continual.memory import HybridMemory, Memory, ReservoirMemory
from strategies.continual.settings import MEMORIES, ContinualSettings, memory_name

_CONDENSING_STEPS = 10
_FAITHFUL_BITS = 8
"""From here on rounding is too fine for a distillation to mind."""


@MEMORIES.register("reservoir")
def reservoir(*, settings: ContinualSettings, byte_budget: int) -> ReservoirMemory:
    """A uniform sample of all that was seen."""
    return ReservoirMemory(byte_budget, settings.bits, seed=_seed(settings))


@MEMORIES.register("balanced")
@checked
def balanced(final_shares: bool = False, *, settings: ContinualSettings, byte_budget: int) -> DistilledMemory:
    """Random real samples, equally many of each class."""
    return exemplars(settings, byte_budget, CoreSet(Random()), final_shares=final_shares)


@MEMORIES.register("herding")
@checked
def herding(final_shares: bool = False, *, settings: ContinualSettings, byte_budget: int) -> DistilledMemory:
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


@MEMORIES.register("distilled")
@checked
def distilled(final_shares: bool = False, *, settings: ContinualSettings, byte_budget: int) -> DistilledMemory:
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


@MEMORIES.register("hybrid")
@checked
def hybrid(
    real_share: Annotated[float, Range(gt=0, lt=1)] = 0.5, *, settings: ContinualSettings, byte_budget: int
) -> HybridMemory:
    """Random real samples in ``real_share`` of the bytes, distilled ones in the rest."""
    real = int(real_share * byte_budget)
    return HybridMemory(
        (
            balanced(settings=settings, byte_budget=real),
            distilled(settings=settings, byte_budget=byte_budget - real),
        )
    )


@MEMORIES.register("condensed")
@checked
def condensed(
    buffer_size: Count = 32, buffer_share: Momentum = 0.5, *, settings: ContinualSettings, byte_budget: int
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


@MEMORIES.register("private")
@checked
def private(
    epsilon: Positive = 4.0,
    views: Count = 8,
    disjoint: bool = False,
    *,
    settings: ContinualSettings,
    byte_budget: int,
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


def named_memory(memory: Memory | str | Mapping[str, Any], settings: ContinualSettings, byte_budget: int) -> Memory:
    """The memory that a text such as "reservoir" or "hybrid:real_share=0.3", or a mapping, names, empty.

    An object is returned as it is, with a byte budget of its own.

    Raises:
        SettingsError: the memory, its method or a setting is unknown or out of range.
    """
    if isinstance(memory, Memory):
        return memory
    plain = parse(memory) if isinstance(memory, str) else dict(memory)
    offered = {"settings": settings, "byte_budget": byte_budget, "bits": settings.bits, "seed": _seed(settings)}
    known = MEMORIES.settings_of(str(plain.get("name")))
    given = {name: value for name, value in offered.items() if name in known}
    for name in given:
        if name in plain:
            raise SettingsError(f"memory {plain['name']!r}: {name} is a setting of the run, not of the memory")
    return MEMORIES.build(plain, **given)


def memory_bytes(settings: ContinualSettings, like: LabelledData) -> int:
    """The byte budget: as given, or what ``images_per_class`` samples of every class take."""
    if settings.byte_budget is not None:
        return settings.byte_budget
    return bytes_of_counts([settings.images_per_class] * like.num_classes, like, settings.bits)


def bytes_beside_logits(settings: ContinualSettings, like: LabelledData, memory: Any) -> int:
    """What is left to a memory where each of its samples has a byte for the logit of every class, and 8 in all.

    Raises:
        SettingsError: a single sample and its logits do not fit.
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


def _stored_as(settings: ContinualSettings, memory: Any) -> tuple[Parameterization, bool]:
    if memory_name(memory) not in ("distilled", "hybrid"):
        return Pixels(), False
    method = _method(settings)
    return method.parameterization, method.labels.soft


def _method(settings: ContinualSettings) -> Distiller:
    """The method; below 8 bits it distils with values rounded as the memory will keep them."""
    method = build_method(settings.method, **settings.method_settings)
    return quantisation_aware(method, settings.bits) if settings.bits < _FAITHFUL_BITS else method


def _seed(settings: ContinualSettings) -> int:
    return derive_seed(settings.seed, "memory")
