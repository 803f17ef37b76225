"""Settings of what a server does with the sets of many clients."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedcl_distill.data import LabelledData
from fedcl_distill.engine import Budget
from fedcl_distill.errors import SettingsError
from fedcl_distill.merging import Merger, MergeTree
from fedcl_distill.methods import build_method
from fedcl_distill.seeding import derive_seed
from fedcl_distill.synthetic import Expectation
from strategies.federated.server.defence import read_defence
from strategies.federated.server.gathering import SetAggregator
from strategies.federated.server.room import room_for
from strategies.federated.settings import FederatedSettings


@dataclass(frozen=True)
class GatherOptions:
    """How sets become one.

    Attributes:
        merge_to: images per class of one set into which all are merged as they come; 0 keeps the union.
        merge_at: images per class that are held before they are merged.
        merge_method: which merges, with its defaults but for the architecture of clients; "" takes the clients' own.
        merge_steps: of each merge; 0 takes the clients' ``distil_steps`` and ``distil_seconds``.
        size_exponent: a client's set counts as the number of its real samples to this power; 0: as its samples.
        defence: judges sets before they are used, such as "agreement" or "agreement:tolerance=0.6"; "" believes all.
        client_share: the most, in (0, 1], that one client may count for of any class.

    Raises:
        SettingsError: on construction, if a number is out of range.
    """

    merge_to: int = 0
    merge_at: int = 100
    merge_method: str = ""
    merge_steps: int = 0
    size_exponent: float = 0.0
    defence: str = ""
    client_share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.merge_to <= self.merge_at or self.merge_at < 1:
            raise SettingsError(f"expected 0 ≤ merge_to ≤ merge_at ≥ 1, got {self.merge_to} and {self.merge_at}")
        if self.merge_steps < 0:
            raise SettingsError(f"merge_steps must not be negative, got {self.merge_steps}")
        if not 0 <= self.size_exponent < math.inf:
            raise SettingsError(f"size_exponent must be finite and not negative, got {self.size_exponent}")
        if not 0 < self.client_share <= 1:
            raise SettingsError(f"client_share must be in (0, 1], got {self.client_share}")


def gathering_for(settings: FederatedSettings, options: GatherOptions, test: LabelledData) -> SetAggregator:
    """How the sets of one round become one.

    Raises:
        SettingsError: a method or a setting is unknown, or they do not fit the data.
    """
    room = room_for(settings.distil_request(test), test.sample_shape, test.num_classes)
    expectation = Expectation(
        test.spec, slack=settings.slack, max_samples=room.samples, max_samples_per_class=room.samples_per_class
    )
    tree = _tree(settings, options, test) if options.merge_to else None
    defence = read_defence(options.defence, derive_seed(settings.seed, "defence"), settings.device)
    return SetAggregator(expectation, room.limits, options.size_exponent, tree, defence, options.client_share)


def _tree(settings: FederatedSettings, options: GatherOptions, test: LabelledData) -> MergeTree:
    own = not options.merge_method
    distiller = build_method(options.merge_method or settings.method, **(settings.method_settings if own else {}))
    seconds = None if options.merge_steps else settings.distil_seconds
    budget = Budget.if_given(options.merge_steps or settings.distil_steps, seconds)
    merger = Merger(distiller, options.merge_to, budget, settings.device)
    return MergeTree(merger, options.merge_at * test.num_classes, derive_seed(settings.seed, "merging"))
