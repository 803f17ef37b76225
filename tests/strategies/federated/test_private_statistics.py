"""Truth: what leaves a node, who may know what, and budgets that are spent."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from flwr.clientapp import ClientApp

from builders import blobs
from fedcl_distill.data import partition
from fedcl_distill.errors import SettingsError
from fedcl_distill.privacy import PrivacyBudget, PrivacyTarget, epsilon_of, guarantee_of
from fedcl_distill.statistics import decode_noisy
from fedcl_distill.synthetic import Limits
from federations import quick, serve
from simulations.settings import FederatedSettings
from strategies.federated import InProcessGrid, make_client_app
from strategies.federated.aggregation import QuorumError
from strategies.federated.answers import SUMS, unpack_payload
from strategies.federated.client import partition_of

SMALL = {
    "views": 3,
    "architecture": "convnet:width=4",
    "dimensions": 8,
    "kind": "direction",
    "moments": 3,
    "epsilon": 5.0,
    "disjoint_clients": True,
}
TRAIN, TEST = blobs(classes=3, per_class=200), blobs(classes=3, per_class=20, seed=1)


def settings(**own: object) -> FederatedSettings:
    return quick(
        strategy="statistics",
        strategy_settings={**SMALL, **own},
        distil_steps=8,
        bits=16,
        clients=2,
        architecture="convnet:width=4",
    )


def app_of(one: FederatedSettings, **more: object) -> ClientApp:
    parts = partition(TRAIN, one.partition, one.clients, seed=one.seed)
    return make_client_app(lambda context: parts[partition_of(context)], **more)  # type: ignore[arg-type]


def run(one: FederatedSettings, app: ClientApp):
    with InProcessGrid(app, nodes=one.clients) as grid:
        return serve(grid, one, TEST)


@pytest.mark.parametrize("trust", ["node", "server"])
def test_the_result_carries_its_guarantee_and_differs_every_time(trust: str) -> None:
    one = settings(trust=trust)
    first, second = run(one, app_of(one)), run(one, app_of(one))
    found = guarantee_of(first.synthetic.provenance)
    assert first.rejections == ()
    assert found is not None
    assert (found.epsilon, found.delta, found.unit) == (5.0, 1e-5, "record")
    assert first.as_record()["privacy"] == found.as_record()
    assert not torch.equal(first.synthetic.inputs(), second.synthetic.inputs())  # nobody knows the noise
    assert first.synthetic.normalisation.mean == (0.5,)
    assert first.accuracy > 0.5


def test_without_epsilon_nothing_is_claimed() -> None:
    one = settings(epsilon=0.0)
    assert run(one, app_of(one)).as_record()["privacy"] is None


def test_a_node_sends_noise_and_tells_neither_size_nor_time() -> None:
    one, seen = settings(trust="node"), []

    def listening(message, context):
        reply = app_of(one)(message, context)
        seen.append((partition_of(context), reply))
        return reply

    run(one, listening)
    assert len(seen) == 2
    parts = partition(TRAIN, one.partition, one.clients, seed=one.seed)
    for number, reply in seen:
        metrics = dict(reply.content["metrics"])
        assert (metrics["num-examples"], metrics["seconds"]) == (1, 0.0)
        noisy = decode_noisy(unpack_payload(reply.content, SUMS, Limits()))
        assert noisy.guarantee is not None
        assert noisy.guarantee.holds
        exact = parts[number].class_counts.double()
        deviation = noisy.deviations()["counts"]
        assert not torch.equal(noisy.counts, exact)
        assert (noisy.counts - exact).abs().max() < 6 * deviation


def test_a_node_with_a_budget_answers_once_and_nothing_else(tmp_path) -> None:
    one = settings(trust="node")

    def budget(context):
        return PrivacyBudget(tmp_path / f"{partition_of(context)}.json", 5.0, 1e-5)

    app = app_of(one, load_budget=budget)
    assert run(one, app).rejections == ()
    with pytest.raises(QuorumError):
        run(one, app_of(one, load_budget=budget))  # a new process finds the ledger as it was left
    for strategy in ("one-shot", "fedavg"):
        with pytest.raises(QuorumError):
            run(quick(strategy=strategy, clients=2, architecture="convnet:width=4"), app)
    plain = settings(epsilon=0.0)
    with pytest.raises(QuorumError):
        run(plain, app)


def test_a_node_that_sends_exact_sums_or_claims_less_is_turned_away() -> None:
    one = settings(trust="node")
    asked_less = settings(trust="node", epsilon=50.0)

    def cheating(message, context):
        if partition_of(context) == 1:
            message = dataclasses.replace(message) if dataclasses.is_dataclass(message) else message
            message.content["config"]["epsilon"] = 50.0
        return app_of(one)(message, context)

    result = run(one, cheating)
    assert len(result.rejections) == 1
    assert "claim" in str(result.rejections[0])
    assert asked_less.strategy_settings["epsilon"] == 50.0


@pytest.mark.parametrize(
    "own", [{"trust": "nobody"}, {"epsilon": -1.0}, {"delta": 2.0}, {"kind": "mean"}, {"share": 0.5}]
)
def test_settings_that_cannot_be_private(own: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        run(settings(**own), app_of(settings()))


def test_feature_vectors_have_no_public_scale() -> None:
    one = settings(architecture="mlp:width=4")
    with pytest.raises(SettingsError, match="would reveal them"), InProcessGrid(app_of(one), nodes=2) as grid:
        serve(grid, one, blobs((6,)))


@pytest.mark.parametrize("trust", ["node", "server"])
def test_unless_stated_a_record_may_be_at_every_node(trust: str) -> None:
    one = settings(trust=trust, disjoint_clients=False)
    found = guarantee_of(run(one, app_of(one)).synthetic.provenance)
    assert found is not None
    single = PrivacyTarget(5.0).guarantee(1.0).mechanism
    halved = dataclasses.replace(single, noise_multiplier=single.noise_multiplier / 2)
    assert found.epsilon == pytest.approx(epsilon_of([single] * 2 if trust == "node" else [halved], 1e-5), abs=0.02)
