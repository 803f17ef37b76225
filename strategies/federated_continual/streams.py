"""When which client lives through what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from fedcl_distill.errors import SettingsError
from fedcl_distill.seeding import generator_for
from fedcl_distill.specs import read_spec


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
"""From clients, experiences and a seed to the itinerary of every client."""


def read_stream(text: str) -> Stream:
    """The stream that ``text`` names, such as "shuffled" or "late:clients=2,after=1".

    Raises:
        SettingsError: it is unknown, or a setting is; calling it, that the setting does not suit clients and
            experiences.
    """
    return read_spec("stream", text, STREAMS)


def same() -> Stream:
    """All clients live through all experiences in one order."""
    return lambda clients, experiences, seed: (ClientSchedule(tuple(range(experiences))),) * clients


def shuffled() -> Stream:
    """Each client has its own order, drawn from the seed."""

    def stream(clients: int, experiences: int, seed: int) -> tuple[ClientSchedule, ...]:
        def order(client: int) -> tuple[int, ...]:
            drawn: list[int] = torch.randperm(experiences, generator=generator_for(seed, "stream", client)).tolist()
            return tuple(drawn)

        return tuple(ClientSchedule(order(client)) for client in range(clients))

    return stream


def late(*, clients: int = 1, after: int = 1) -> Stream:
    """The last ``clients`` join once ``after`` stages are over, and begin with the first experience then."""
    return _changing(clients, after, lambda order: ClientSchedule(order, joins=after))


def departing(*, clients: int = 1, after: int = 1) -> Stream:
    """The last ``clients`` leave once ``after`` stages are over; their later experiences nobody hears of."""
    return _changing(clients, after, lambda order: ClientSchedule(order, leaves=after))


STREAMS: dict[str, Callable[..., Stream]] = {
    "same": same,
    "shuffled": shuffled,
    "late": late,
    "departing": departing,
}


def _changing(count: int, after: int, other: Callable[[tuple[int, ...]], ClientSchedule]) -> Stream:
    if type(count) is not int or type(after) is not int or count < 1 or after < 1:
        raise SettingsError(f"clients and after must be whole numbers from 1, got {count!r} and {after!r}")

    def stream(clients: int, experiences: int, seed: int) -> tuple[ClientSchedule, ...]:
        if count >= clients:
            raise SettingsError(f"{count} of {clients} clients come or go; at least one must be there throughout")
        stay = ClientSchedule(tuple(range(experiences)))
        return (stay,) * (clients - count) + (other(stay.order),) * count

    return stream
