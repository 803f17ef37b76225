"""Federated strategies by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from flwr.serverapp.strategy import Strategy

from fedcl_distill.data import LabelledData
from fedcl_distill.errors import SettingsError
from strategies.federated.dynafed import DynaFed, DynaFedOptions, Replayer
from strategies.federated.fedavg import GuardedFedAvg
from strategies.federated.learner import Learner
from strategies.federated.merge import GatherOptions, gathering_for
from strategies.federated.one_shot import OneShotUnion
from strategies.federated.options import NoOptions, read_options
from strategies.federated.reception import Reception
from strategies.federated.settings import FederatedSettings
from strategies.federated.surrogate import SurrogateOptions, SurrogateRounds

Builder = Callable[[FederatedSettings, LabelledData, Learner, Reception], Strategy]


def one_shot(settings: FederatedSettings, test: LabelledData, learner: Learner, reception: Reception) -> OneShotUnion:
    """Synthetic sets, once."""
    if settings.rounds != 1:
        raise SettingsError(f"one-shot has one round, {settings.rounds} were asked for")
    options = read_options(GatherOptions, settings.strategy, settings.strategy_settings)
    gathering = gathering_for(settings, options, test)  # a typing error shall not cost a round
    return OneShotUnion(settings.distil_request(test), gathering, learner, reception)


def feddm(settings: FederatedSettings, test: LabelledData, learner: Learner, reception: Reception) -> SurrogateRounds:
    """Synthetic sets, every round, made around the global model; DM then matches class scores, too, as FedDM does."""
    options = read_options(SurrogateOptions, settings.strategy, settings.strategy_settings)
    if settings.method == "dm":
        settings = replace(settings, method_settings={"scores_weight": 1.0, **settings.method_settings})
    request = settings.surrogate_request(test, options.radius, options.weight_bits)
    request.around(learner.fresh())
    gathering = gathering_for(settings, options, test)
    return SurrogateRounds(request, gathering, learner, reception, options.server_radius)


def fedavg(settings: FederatedSettings, test: LabelledData, learner: Learner, reception: Reception) -> GuardedFedAvg:
    """Models, every round."""
    read_options(NoOptions, settings.strategy, settings.strategy_settings)
    return GuardedFedAvg(settings.train_request(test), learner.fresh(), reception)


def dynafed(settings: FederatedSettings, test: LabelledData, learner: Learner, reception: Reception) -> DynaFed:
    """Models, every round, finetuned on a set that the server distils from their path."""
    options = read_options(DynaFedOptions, settings.strategy, settings.strategy_settings)
    if options.collect_rounds >= settings.rounds:
        raise SettingsError(
            f"dynafed collects models of {options.collect_rounds} rounds and then goes on, "
            f"but there are {settings.rounds}; take more rounds or fewer collect_rounds"
        )
    replayer = Replayer(options, test, settings.images_per_class, settings.seed, settings.device)
    return DynaFed(settings.train_request(test), learner, reception, replayer)


STRATEGIES: dict[str, Builder] = {"one-shot": one_shot, "feddm": feddm, "fedavg": fedavg, "dynafed": dynafed}


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
