"""Federated strategies by name."""

from __future__ import annotations

from collections.abc import Callable

from flwr.serverapp.strategy import Strategy

from fedcl_distill.data import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.synthetic import Expectation
from strategies.federated.fedavg import GuardedFedAvg
from strategies.federated.learner import Learner
from strategies.federated.one_shot import OneShotUnion
from strategies.federated.reception import Reception
from strategies.federated.room import room_for
from strategies.federated.settings import FederatedSettings

Builder = Callable[[FederatedSettings, LabelledData, Learner, Reception], Strategy]


def one_shot(settings: FederatedSettings, test: LabelledData, learner: Learner, reception: Reception) -> OneShotUnion:
    """Synthetic sets, once."""
    if settings.rounds != 1:
        raise SettingsError(f"one-shot has one round, {settings.rounds} were asked for")
    request = settings.distil_request(test)
    room = room_for(request, test.sample_shape, test.num_classes)  # a typing error shall not cost a round
    expectation = Expectation.like(
        test, slack=settings.slack, max_samples=room.samples, max_samples_per_class=room.samples_per_class
    )
    return OneShotUnion(request, expectation, learner, reception, room.limits)


def fedavg(settings: FederatedSettings, test: LabelledData, learner: Learner, reception: Reception) -> GuardedFedAvg:
    """Models, every round."""
    return GuardedFedAvg(settings.train_request(test), learner.fresh(), reception)


STRATEGIES: dict[str, Builder] = {"one-shot": one_shot, "fedavg": fedavg}


def list_strategies() -> list[str]:
    """Names that ``FederatedSettings.strategy`` takes."""
    return sorted(STRATEGIES)


def build_strategy(settings: FederatedSettings, test: LabelledData, learner: Learner, reception: Reception) -> Strategy:
    """The strategy that ``settings`` name.

    Raises:
        SettingsError: it is unknown, or the settings do not fit it.
    """
    if settings.strategy not in STRATEGIES:
        raise SettingsError(f"unknown strategy {settings.strategy!r}; known: {', '.join(list_strategies())}")
    return STRATEGIES[settings.strategy](settings, test, learner, reception)
