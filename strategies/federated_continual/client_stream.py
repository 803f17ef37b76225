"""What a client lives through: its experiences, as plain data or as an Avalanche benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

from fedcl_distill.data import LabelledData
from strategies.federated_continual.experiences import experiences_of
from strategies.federated_continual.settings import FederatedContinualSettings
from strategies.federated_continual.streams import ClientSchedule


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
    def of_benchmark(cls, benchmark: Any, like: LabelledData, itinerary: ClientSchedule | None = None) -> ClientStream:
        """The train stream of an Avalanche benchmark, read experience by experience when its stage comes.

        Args:
            benchmark: items begin with a normalised input and an integer label, as in ``class_incremental``.
            like: data of the same kind: their classes, normalisation and range count.
            itinerary: None takes them as the first, second, … experience, from the first stage on.
        """
        experiences = _Experiences(benchmark, like)
        return cls(experiences, itinerary or ClientSchedule(tuple(range(len(experiences)))))

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


def client_stream(settings: FederatedContinualSettings, data: LabelledData, partition: int) -> ClientStream:
    """The stream of the client that holds ``data``, the given partition; SettingsError as for ``experiences_of``."""
    itinerary, parts = settings.itineraries[partition], experiences_of(settings, data)
    return ClientStream(tuple(parts[index] for index in itinerary.order), itinerary)


class _Experiences(Sequence[LabelledData]):
    """The experiences of a benchmark, each read when it is asked for."""

    def __init__(self, benchmark: Any, like: LabelledData) -> None:
        self._stream = benchmark.train_stream
        self._like = like

    def __len__(self) -> int:
        return len(self._stream)

    @overload
    def __getitem__(self, index: int) -> LabelledData: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[LabelledData]: ...

    def __getitem__(self, index: int | slice) -> LabelledData | Sequence[LabelledData]:
        from strategies.continual import labelled_data

        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return labelled_data(self._stream[index].dataset, self._like)
