"""Ways to make a release: a synthetic set or a trained model, out of the data of members."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from fedcl_distill.data import LabelledData
from fedcl_distill.engine import finished
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.synthetic import SyntheticSet, decode, encode
from simulations.audit.settings import DISTIL, AuditSettings

Release = SyntheticSet | Network
Maker = Callable[[LabelledData, LabelledData, int], Release]
"""Makes a release of members' data, with test data for whoever serves, by a seed."""


def maker_for(settings: AuditSettings) -> Maker:
    """The way that ``settings`` describe.

    Raises:
        SettingsError: the federated settings are wrong.
    """
    return _distiller(settings) if settings.strategy == DISTIL else _federation(settings)


def _distiller(settings: AuditSettings) -> Maker:
    def make(members: LabelledData, _: LabelledData, seed: int) -> SyntheticSet:
        method = build_method(settings.method, **settings.method_settings)
        size, budget = settings.images_per_class, settings.budget
        distilled = finished(method.distil(members, size, seed=seed, budget=budget, device=settings.device))
        return decode(encode(distilled, settings.bits))

    return make


def _federation(settings: AuditSettings) -> Maker:
    """What the server has in the end: the union of sets, or the global model where there is none."""
    from fedcl_distill.data import partition
    from simulations.scenarios.federated import quiet_flower
    from simulations.settings import FederatedSettings
    from strategies.federated import InProcessGrid, list_strategies, make_client_app, run_server
    from strategies.federated.weights import put_weights

    if settings.strategy not in list_strategies():
        raise SettingsError(f"unknown strategy {settings.strategy!r}; known: {DISTIL}, {', '.join(list_strategies())}")
    shared = [one.name for one in fields(FederatedSettings) if hasattr(settings, one.name) and one.name != "data_root"]
    own = {one.name for one in fields(FederatedSettings)} - set(shared)
    unknown = sorted(set(settings.federated) - own)
    if unknown:
        raise SettingsError(
            f"a federated run has no setting {', '.join(unknown)} here; it has: {', '.join(sorted(own))}"
        )
    given: dict[str, Any] = {name: getattr(settings, name) for name in shared}
    FederatedSettings(**given, **settings.federated)  # what is wrong shall be told before anything runs

    def make(members: LabelledData, test: LabelledData, seed: int) -> Release:
        run = FederatedSettings(**{**given, "seed": seed}, **settings.federated)
        parts = partition(members, run.partition, run.clients, seed=seed, min_size=run.min_client_samples)
        client_app = make_client_app(lambda context: parts[int(context.node_config["partition-id"])])
        with quiet_flower(), InProcessGrid(client_app, run.clients, run.to_run_config()) as grid:
            result = run_server(grid, run.build_strategy(), test=test, **run.options)
        if result.synthetic is not None:
            return result.synthetic
        architecture = Architecture.parse(settings.architecture)
        network = architecture.build(test.sample_shape, test.num_classes, seed=seed, device=settings.device)
        put_weights(network, result.weights)
        return network

    return make
