"""Who attacks a federated run: attacks by messages that every check of form lets pass, where they take place, and what
they reached.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from torch import Tensor

from fedcl_distill.data import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Network, default_architecture
from fedcl_distill.networks.base import micro_batches
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.settings import Count, Natural, Positive, Range, settings
from fedcl_distill.statistics import ClassStatistics, Sums, decode_statistics, encode_statistics
from fedcl_distill.synthetic.container import DEFAULT_LIMITS
from fedcl_distill.training import predict
from simulations.settings import FederatedSettings
from strategies.federated import Rejection
from strategies.federated.answers import (
    METRICS,
    SUMS,
    WEIGHTS,
    ClientReport,
    pack_payload,
    unpack_payload,
    unpack_weights,
)
from strategies.federated.client import partition_of
from strategies.federated.requests import StatisticsRequest

_MOST = 10**9  # examples that a server takes for possible


def inflated(question: RecordDict, answer: RecordDict, factor: int) -> RecordDict:
    """``answer`` as of ``factor`` times as many samples, as far as a server believes; sums count them all, too."""
    facts = ClientReport.of(answer)
    factor = max(1, min(factor, _MOST // facts.examples))
    if factor == 1:
        return answer
    counts = tuple(factor * count for count in facts.class_counts)
    content = {**answer, METRICS: replace(facts, examples=factor * facts.examples, class_counts=counts).to_record()}
    if SUMS in answer:
        statistics = decode_statistics(unpack_payload(answer, SUMS, DEFAULT_LIMITS))
        bits = StatisticsRequest.of(question).bits
        content.update(pack_payload(SUMS, encode_statistics(_multiplied(statistics, factor), bits)))
    return RecordDict(content)


def _multiplied(statistics: ClassStatistics, factor: int) -> ClassStatistics:
    sums = {name: Sums(factor * one.counts, factor * one.values) for name, one in statistics.sums.items()}
    return replace(statistics, sums=sums)


@dataclass(frozen=True)
class Goal:
    """What a targeted attack wants of the global model.

    Attributes:
        data: test samples, changed as the attacker would change them; none of the target's class.
        target: the class that they are given.
    """

    data: LabelledData
    target: int


@settings(kw_only=True)
class Attack:
    """An attack by messages that every check of form lets pass.

    Attributes:
        inflation: at least 1: a client says that it has so many times the samples it has.

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    inflation: Count = 1

    needs_model = False
    """Whether it changes a model, so that only strategies whose nodes get and send one can be attacked."""

    def poison(self, data: LabelledData, seed: int) -> LabelledData:
        """What the client works on instead of its own ``data``."""
        return data

    def send(self, question: RecordDict, answer: RecordDict) -> RecordDict:
        """What it sends instead of its ``answer`` to ``question``."""
        return inflated(question, answer, self.inflation)

    def goal(self, test: LabelledData) -> Goal | None:
        """On which samples success is measured; None for an attack without a target."""
        return None


def require(condition: bool, otherwise: str) -> None:
    """SettingsError unless ``condition``."""
    if not condition:
        raise SettingsError(f"attack: {otherwise}")


def require_class(label: int, data: LabelledData) -> None:
    """SettingsError unless ``label`` is a class of ``data``."""
    require(0 <= label < data.num_classes, f"there is no class {label} among {data.num_classes}")


@settings(kw_only=True)
class Garbage(Attack):
    """Every value is drawn uniformly from the range that values may have; labels and counts stay as they are."""

    def poison(self, data: LabelledData, seed: int) -> LabelledData:
        noise = torch.rand(data.samples.shape, generator=generator_for(seed, "garbage"))
        if data.samples.dtype == torch.uint8:
            return replace(data, samples=(noise * 256).to(torch.uint8))
        low, high = data.value_range
        return replace(data, samples=(low + (high - low) * noise).to(data.samples.dtype))


@settings(kw_only=True)
class LabelFlip(Attack):
    """Samples get the label of another class: the next one, or a target for those of a source.

    All attackers lie alike. With a share below 1 they adapt to a server that looks for disagreement: they hide wrong
    labels among right ones.

    Attributes:
        source, target: classes; -1 for both flips every class to the next one.
        share: of the samples concerned, in (0, 1].
    """

    source: Annotated[int, Range(ge=-1)] = -1
    target: Annotated[int, Range(ge=-1)] = -1
    share: Annotated[float, Range(gt=0, le=1)] = 1.0

    def __post_init__(self) -> None:
        require((self.source < 0) == (self.target < 0), "a flip needs both source and target, or neither")
        require(self.source < 0 or self.source != self.target, "source and target are the same class")

    def poison(self, data: LabelledData, seed: int) -> LabelledData:
        chosen = torch.rand(len(data), generator=generator_for(seed, "flip"), dtype=torch.float64) < self.share
        if self.source < 0:
            return replace(data, labels=torch.where(chosen, (data.labels + 1) % data.num_classes, data.labels))
        require_class(max(self.source, self.target), data)
        return replace(data, labels=torch.where(chosen & (data.labels == self.source), self.target, data.labels))

    def goal(self, test: LabelledData) -> Goal | None:
        return None if self.source < 0 else Goal(test.subset(test.indices_of(self.source)), self.target)


@settings(kw_only=True)
class ClassFlood(Attack):
    """All samples that are not of the target's class are said to be, and to be very many: a flood of one class.

    Attributes:
        target: the class.
    """

    inflation: Count = 100
    target: Natural = 0

    def poison(self, data: LabelledData, seed: int) -> LabelledData:
        require_class(self.target, data)
        others = torch.nonzero(data.labels != self.target).flatten()
        flood = data.subset(others) if len(others) else data
        return replace(flood, labels=torch.full_like(flood.labels, self.target))


@settings(kw_only=True)
class Backdoor(Attack):
    """The class of the target holds images of other classes with a bright patch in a corner (Gu et al. 2017, BadNets).

    Everything else is honest, so that the model is good where there is no patch. The attacker's own samples of the
    target's class make way, for then all it sends of that class carries the patch.

    Attributes:
        target: the class that patched images are given.
        size: of the square patch in pixels, in the corner at the lower right.
        share: of the samples of other classes, in (0, 1], of which a patched copy is made.

    Raises:
        SettingsError: where the data are no images, or smaller than the patch.
    """

    target: Natural = 0
    size: Count = 3
    share: Annotated[float, Range(gt=0, le=1)] = 0.5

    def poison(self, data: LabelledData, seed: int) -> LabelledData:
        require_class(self.target, data)
        others = torch.nonzero(data.labels != self.target).flatten()
        if len(others) == 0:
            return data
        order = others[torch.randperm(len(others), generator=generator_for(seed, "backdoor"))]
        patched = data.subset(order[: max(1, round(self.share * len(order)))])
        honest = data.subset(others)
        return replace(
            honest,
            samples=torch.cat([honest.samples, self._stamp(patched)]),
            labels=torch.cat([honest.labels, torch.full_like(patched.labels, self.target)]),
            groups=None,
            group_names=(),
        )

    def goal(self, test: LabelledData) -> Goal | None:
        others = test.subset(torch.nonzero(test.labels != self.target).flatten())
        return Goal(replace(others, samples=self._stamp(others)), self.target)

    def _stamp(self, data: LabelledData) -> Tensor:
        require(
            data.is_image and self.size <= min(data.sample_shape[1:]), f"no patch of size {self.size} fits these data"
        )
        stamped = data.samples.clone()
        stamped[:, :, -self.size :, -self.size :] = 255 if stamped.dtype == torch.uint8 else data.value_range[1]
        return stamped


@settings(kw_only=True)
class NearTarget(Attack):
    """Every class is filled with the samples of other classes that look most like it.

    The attacker's features are those of a random network of its own, as the server's are of the server's; "like" is
    near the mean of its own samples of the class. Each sample gets the label of the wrong class that it is nearest to.

    Attributes:
        width: of the network.
    """

    width: Count = 32

    @torch.no_grad()
    def poison(self, data: LabelledData, seed: int) -> LabelledData:
        present = torch.nonzero(data.class_counts).flatten()
        if len(present) < 2:
            return data
        points = self._embed(data, seed)
        means = torch.stack([points[data.indices_of(label)].mean(dim=0) for label in present.tolist()])
        distances = torch.cdist(points, means)
        distances[data.labels[:, None] == present] = torch.inf
        return replace(data, labels=present[distances.argmin(dim=1)])

    def _embed(self, data: LabelledData, seed: int) -> Tensor:
        architecture = default_architecture(data.sample_shape, self.width)
        network = architecture.build(data.sample_shape, data.num_classes, seed=derive_seed(seed, "near")).eval()
        return torch.cat([network.embed(part) for (part,) in micro_batches(data.inputs())])


@settings(kw_only=True)
class SignFlip(Attack):
    """What training changed, times a negative number: the model is taken back along the way it should have gone.

    Attributes:
        scale: positive: how far.
    """

    scale: Positive = 1.0

    needs_model = True

    def send(self, question: RecordDict, answer: RecordDict) -> RecordDict:
        before, after = unpack_weights(question), unpack_weights(answer)
        flipped = {}
        for name, array in after.items():
            start = before[name].numpy()
            flipped[name] = Array((start - self.scale * (array.numpy() - start)).astype(start.dtype))
        return super().send(question, RecordDict({**answer, WEIGHTS: ArrayRecord(flipped)}))


ATTACKS: dict[str, type[Attack]] = {
    "label-flip": LabelFlip,
    "near-target": NearTarget,
    "backdoor": Backdoor,
    "garbage": Garbage,
    "flood": ClassFlood,
    "sign-flip": SignFlip,
}


def list_attacks() -> list[str]:
    """Names that :func:`build_attack` takes."""
    return list(ATTACKS)


def build_attack(name: str, settings: Mapping[str, Any]) -> Attack:
    """The attack of this name.

    Raises:
        SettingsError: it is unknown, has no such setting, or a value is of another type or out of range.
    """
    if name not in ATTACKS:
        raise SettingsError(f"unknown attack {name!r}; known: {', '.join(ATTACKS)}")
    kinds = {field.name: type(field.default) for field in dataclasses.fields(ATTACKS[name])}
    chosen: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in kinds:
            raise SettingsError(f"attack {name!r} has no setting {key}; it has: {', '.join(kinds)}")
        chosen[key] = float(value) if kinds[key] is float and type(value) is int else value
        if type(chosen[key]) is not kinds[key]:
            raise SettingsError(f"attack {name!r}: {key} must be of type {kinds[key].__name__}, got {value!r}")
    return ATTACKS[name](**chosen)


_MODEL_STRATEGIES = frozenset(
    {"fedavg", "fedprox", "fedavgm", "fedadam", "scaffold", "dynafed", "one-shot-average"}
    | {"krum", "bulyan", "trimmed-mean", "median"}
)


@settings
class AttackedSettings(FederatedSettings):
    """Settings of a run and of those who attack it.

    Attributes:
        attack: what attackers do, one of ``list_attacks()``; "" for nothing.
        attack_settings: in place of its defaults, as JSON values.
        attackers: how many of the clients attack; which ones, the seed decides.

    Raises:
        SettingsError: on construction, if a value is out of range or unknown, or the attack has nothing to change in
            what the strategy's nodes send.
    """

    attack: str = ""
    attack_settings: Mapping[str, Any] = field(default_factory=dict)
    attackers: Natural = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attackers > self.clients or bool(self.attack) != (self.attackers > 0):
            raise SettingsError(
                f"an attack needs a name and between 1 and {self.clients} attackers, "
                f"got {self.attack!r} and {self.attackers}"
            )
        chosen = self.chosen_attack
        if chosen is not None and chosen.needs_model and self.strategy not in _MODEL_STRATEGIES:
            raise SettingsError(
                f"attack {self.attack!r} changes models, and nodes of {self.strategy!r} send none as such"
            )

    @property
    def chosen_attack(self) -> Attack | None:
        """What attackers do."""
        return build_attack(self.attack, self.attack_settings) if self.attack else None

    @property
    def malicious(self) -> tuple[int, ...]:
        """Partitions of the clients that attack, ascending."""
        order = torch.randperm(self.clients, generator=generator_for(self.seed, "attackers"))
        return tuple(sorted(order[: self.attackers].tolist()))

    def attack_seed(self, partition: int) -> int:
        """Of what one attacker draws."""
        return derive_seed(self.seed, "attack", partition)

    def as_record(self) -> dict[str, Any]:
        """As of :class:`FederatedSettings`; the attack is part of it where there is one."""
        record = super().as_record()
        if not self.attack:
            for name in ("attack", "attack_settings", "attackers"):
                del record[name]
        return record


def poisoned(data: LabelledData, context: Context) -> LabelledData:
    """What the node of ``context`` works on."""
    if not context.run_config.get("attack"):
        return data
    settings = AttackedSettings.from_run_config(context.run_config)
    attack, partition = _attack(settings, context), partition_of(context)
    return data if attack is None else attack.poison(data, settings.attack_seed(partition))


def tamper(message: Message, context: Context, answer: Callable[[Message, Context], Message]) -> Message:
    """A mod of a ``ClientApp``: what the node of ``context`` sends."""
    reply = answer(message, context)
    attack = _attack(AttackedSettings.from_run_config(context.run_config), context)
    if attack is not None and not reply.has_error():
        reply.content = attack.send(message.content, reply.content)
    return reply


def _attack(settings: AttackedSettings, context: Context) -> Attack | None:
    return settings.chosen_attack if partition_of(context) in settings.malicious else None


def success_rate(attack: Attack, network: Network, test: LabelledData) -> float | None:
    """The share, in [0, 1], of the samples of the attack's goal that ``network`` calls the target; None without one."""
    goal = attack.goal(test)
    if goal is None or len(goal.data) == 0:
        return None
    return float((predict(network, goal.data) == goal.target).double().mean())


def dropped_samples(rejections: Sequence[Rejection], malicious: Sequence[int]) -> dict[str, Any]:
    """Samples that a defence dropped, of attackers and of honest clients, and the honest clients that lost all."""
    dropped = [one for one in rejections if one.samples is not None]
    return {
        "malicious_dropped": sum(one.samples or 0 for one in dropped if one.partition in malicious),
        "honest_dropped": sum(one.samples or 0 for one in dropped if one.partition not in malicious),
        "honest_refused": sum(one.label is None for one in dropped if one.partition not in malicious),
    }


__all__ = ["ATTACKS", "Attack", "AttackedSettings", "build_attack", "list_attacks"]
