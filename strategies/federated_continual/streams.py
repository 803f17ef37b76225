"""What clients live through: experiences, when which client has which, and a client's own stream of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

import torch

from fedcl_distill.data import DataSpec, LabelledData, conform
from fedcl_distill.errors import SettingsError
from fedcl_distill.registry import Registry
from fedcl_distill.seeding import generator_for
from fedcl_distill.settings import suggest
from strategies.continual.streams import DOMAINS, class_groups
from strategies.federated.requests import Task

SCENARIOS = ("class", "domain")
"""What changes from one experience to the next."""


def experiences_of(
    data: LabelledData,
    experiences: int,
    *,
    scenario: str = "class",
    domain: str = "rotation",
    order_seed: int | None = None,
) -> tuple[LabelledData, ...]:
    """What ``data`` hold of each experience, in their order, alike for every client and the server's tests.

    Of some that may be nothing.

    Args:
        data: of a client, or of the server.
        experiences: how many.
        scenario: what changes: the "class"es, or the "domain" (how the same classes look).
        domain: "rotation", "permutation" or "inversion".
        order_seed: draws the order of classes; None keeps it as numbered.

    Raises:
        SettingsError: there are fewer classes than experiences, or the domain is unknown or does not fit the data.
    """
    if scenario not in SCENARIOS:
        raise SettingsError(suggest("scenario", scenario, SCENARIOS))
    if scenario == "domain":
        if domain not in DOMAINS:
            raise SettingsError(suggest("domain", domain, DOMAINS))
        return tuple(DOMAINS[domain](data, index, experiences) for index in range(experiences))
    groups = class_groups(data.num_classes, experiences, order_seed)
    return tuple(data.subset(torch.isin(data.labels, torch.tensor(group)).nonzero().flatten()) for group in groups)


@dataclass(frozen=True)
class ClientSchedule:
    """The way of one client through the experiences.

    Attributes:
        order: of its experiences, one a stage.
        joins: stage of its first experience, from 0.
        leaves: the first stage at which it is gone; None if it stays.
    """

    order: tuple[int, ...]
    joins: int = 0
    leaves: int | None = None

    @property
    def ends(self) -> int:
        """The first stage after its last experience."""
        last = self.joins + len(self.order)
        return last if self.leaves is None else min(last, self.leaves)

    def position_at(self, stage: int) -> int | None:
        """How many experiences the client has had when ``stage`` begins; None where it has no new one then."""
        return stage - self.joins if self.joins <= stage < self.ends else None


Stream = Callable[[int, int, int], tuple[ClientSchedule, ...]]
"""From clients, experiences and a seed to the schedule of every client."""

STREAMS: Registry[Stream] = Registry("stream", "fedcl_distill.client_streams")
"""How clients live through the experiences, by name."""


def read_stream(text: str) -> Stream:
    """The stream that ``text`` names, such as "shuffled" or "late:clients=2,after=1".

    Raises:
        SettingsError: it is unknown, or a setting is; calling it, that the setting does not suit clients and
            experiences.
    """
    return STREAMS.build(text)


@STREAMS.register("same")
def same() -> Stream:
    """All clients live through all experiences in one order."""
    return lambda clients, experiences, seed: (ClientSchedule(tuple(range(experiences))),) * clients


@STREAMS.register("shuffled")
def shuffled() -> Stream:
    """Each client has its own order, drawn from the seed."""

    def stream(clients: int, experiences: int, seed: int) -> tuple[ClientSchedule, ...]:
        def order(client: int) -> tuple[int, ...]:
            drawn: list[int] = torch.randperm(experiences, generator=generator_for(seed, "stream", client)).tolist()
            return tuple(drawn)

        return tuple(ClientSchedule(order(client)) for client in range(clients))

    return stream


@STREAMS.register("late")
def late(*, clients: int = 1, after: int = 1) -> Stream:
    """The last ``clients`` join once ``after`` stages are over, and begin with the first experience then."""
    return _changing(clients, after, lambda order: ClientSchedule(order, joins=after))


@STREAMS.register("departing")
def departing(*, clients: int = 1, after: int = 1) -> Stream:
    """The last ``clients`` leave once ``after`` stages are over; their later experiences nobody hears of."""
    return _changing(clients, after, lambda order: ClientSchedule(order, leaves=after))


def _changing(count: int, after: int, other: Callable[[tuple[int, ...]], ClientSchedule]) -> Stream:
    if type(count) is not int or type(after) is not int or count < 1 or after < 1:
        raise SettingsError(f"clients and after must be whole numbers from 1, got {count!r} and {after!r}")

    def stream(clients: int, experiences: int, seed: int) -> tuple[ClientSchedule, ...]:
        if count >= clients:
            raise SettingsError(f"{count} of {clients} clients come or go; at least one must be there throughout")
        stay = ClientSchedule(tuple(range(experiences)))
        return (stay,) * (clients - count) + (other(stay.order),) * count

    return stream


@dataclass(frozen=True)
class ClientStream:
    """The experiences of one client.

    Attributes:
        experiences: in the order in which this client has them; one without samples is passed over.
        itinerary: which they are, and at which stages.
    """

    experiences: Sequence[LabelledData]
    itinerary: ClientSchedule

    @classmethod
    def of(cls, experiences: Sequence[LabelledData], itinerary: ClientSchedule) -> ClientStream:
        """The stream of a client that holds something of ``experiences``, in the order of its itinerary."""
        return cls(tuple(experiences[index] for index in itinerary.order), itinerary)

    @classmethod
    def of_benchmark(cls, benchmark: Any, like: LabelledData, itinerary: ClientSchedule | None = None) -> ClientStream:
        """The train stream of an Avalanche benchmark, read experience by experience when its stage comes.

        Args:
            benchmark: items begin with a normalised input and an integer label, as in ``class_incremental``.
            like: data of the same kind: their classes, normalisation and range count.
            itinerary: None takes them as the first, second, … experience, from the first stage on.
        """
        experiences = _Experiences(benchmark, like)
        return cls(experiences, itinerary or ClientSchedule(tuple(range(len(experiences)))))

    def conformed(self, spec: DataSpec) -> ClientStream:
        """The same with each experience put into the terms of ``spec`` when it is read; DataError if it cannot be."""
        return replace(self, experiences=_Conformed(self.experiences, spec))

    def benchmark(self) -> Any:
        """The same as an Avalanche benchmark, for whatever runs on Avalanche."""
        from strategies.continual import in_parts  # here, because importing Avalanche takes ten seconds

        return in_parts(self.experiences)

    def position_at(self, stage: int) -> int | None:
        """Which of ``experiences`` the client learns from at ``stage``; None where it has none, or no sample of it."""
        position = self.itinerary.position_at(stage)
        if position is None or position >= len(self.experiences) or not len(self.experiences[position]):
            return None
        return position


class _WhenAsked(Sequence[LabelledData], ABC):
    """Experiences that are made one by one, each when it is asked for."""

    @abstractmethod
    def make(self, index: int) -> LabelledData:
        """The experience at this place."""

    @overload
    def __getitem__(self, index: int) -> LabelledData: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[LabelledData]: ...

    def __getitem__(self, index: int | slice) -> LabelledData | Sequence[LabelledData]:
        if isinstance(index, slice):
            return [self.make(place) for place in range(*index.indices(len(self)))]
        return self.make(index)


class _Experiences(_WhenAsked):
    """Those of a benchmark."""

    def __init__(self, benchmark: Any, like: LabelledData) -> None:
        self._stream = benchmark.train_stream
        self._like = like

    def __len__(self) -> int:
        return len(self._stream)

    def make(self, index: int) -> LabelledData:
        from strategies.continual import labelled_data

        return labelled_data(self._stream[index].dataset, self._like)


class _Conformed(_WhenAsked):
    """Others in the terms of one specification."""

    def __init__(self, experiences: Sequence[LabelledData], spec: DataSpec) -> None:
        self._experiences, self._spec = experiences, spec

    def __len__(self) -> int:
        return len(self._experiences)

    def make(self, index: int) -> LabelledData:
        return conform(self._experiences[index], self._spec)


@dataclass(frozen=True)
class StreamTask(Task):
    """A request at one stage of a stream; ``data`` are the experience to learn from.

    Attributes:
        stream: of the node.
        position: of the experience in it.
    """

    stream: ClientStream = field(kw_only=True)
    position: int = field(kw_only=True)
