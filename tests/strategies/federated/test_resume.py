"""A server that was killed after some round goes on, to the bits of one that never stopped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flwr.serverapp import strategy as flower

from fedcl_distill.errors import CheckpointError, SettingsError
from federations import data_and_test, honest_app, quick, serve
from strategies.federated import FedAvg, InProcessGrid, list_strategies

ON_FEATURES = ("feature-sums", "fedncm", "fed3r", "afl", "fedcgs", "fedpft")  # which have tests of their own
ON_IMAGES = [name for name in list_strategies() if name not in ON_FEATURES]
ONE_ROUND = ("one-shot", "one-shot-average", "one-shot-ensemble", "statistics")
CHOSEN = {
    "one-shot-average": {"epochs": 2},
    "one-shot-ensemble": {"epochs": 2},
    "feddm": {"radius": 0.1, "merge_to": 1, "merge_at": 2, "merge_method": "herding"},
    "topk": {"fraction": 0.2},
    "krum": {"malicious": 0},
    "bulyan": {"malicious": 0},
    "dynafed": {"collect_rounds": 2, "segment": 1, "student_steps": 2, "distil_steps": 2, "finetune_epochs": 1},
    "statistics": {"views": 2, "architecture": "mlp:width=4", "dimensions": 4},
}


class Killed(Exception):
    pass


def settings(strategy, **changes):
    given = {
        "strategy": strategy,
        "strategy_settings": CHOSEN.get(strategy, {}),
        "rounds": 1 if strategy in ONE_ROUND else 4,
        "method": "dm" if strategy in ("feddm", "statistics") else "random",
        "method_settings": {"learning_rate": 0.05} if strategy == "feddm" else {},
        "distil_steps": 2,
        "bits": 32,
    }
    return quick(**{**given, **changes})


class RemoteNodes(InProcessGrid):
    """As where nodes are other machines: the server cannot keep what they keep."""

    node_state = None


def grid_for(one, grid=InProcessGrid):
    train, _ = data_and_test()
    return grid(honest_app(one, train), one.clients)


def killed_after(server_round):
    def on_round(result):
        if result.server_round == server_round:
            raise Killed

    return on_round


def without_times(result):
    def timeless(rounds):
        seconds = ("client_seconds", "slowest_client_seconds", "server_seconds")
        return [{key: value for key, value in one.items() if key not in seconds} for one in rounds]

    record = result.as_record()
    return {**{key: record[key] for key in record if "seconds" not in key}, "rounds": timeless(record["rounds"])}


def assert_same(one, other):
    assert list(one.weights) == list(other.weights)
    for name, array in one.weights.items():
        assert array.dtype == other.weights[name].dtype
        assert np.array_equal(array.numpy(), other.weights[name].numpy()), name
    assert without_times(one) == without_times(other)
    assert one.ledger == other.ledger


@pytest.mark.parametrize(
    ("strategy", "stops"), [*((strategy, (1, 3)) for strategy in ON_IMAGES), ("fedavg", (0,)), ("topk", (0, 2))]
)
def test_it_goes_on_to_the_same_bits(strategy, stops, tmp_path):
    one = settings(strategy)
    _, test = data_and_test()
    with grid_for(one) as grid:
        whole = serve(grid, one, test)
    with grid_for(one) as grid:
        for stop in stops:
            if stop > one.rounds:
                continue
            with pytest.raises(Killed):
                serve(grid, one, test, on_round=killed_after(stop), checkpoint=tmp_path / "run.pt")
        seen = []
        resumed = serve(grid, one, test, on_round=seen.append, checkpoint=tmp_path / "run.pt")
    done = max(stop for stop in stops if stop <= one.rounds)
    # The last finished round is told again, so that whoever listens knows where the run stands.
    assert [result.server_round for result in seen] == list(range(done, one.rounds + 1))
    assert_same(resumed, whole)


@pytest.mark.parametrize("strategy", ["scaffold", "topk", "fedadam"])
def test_a_server_killed_in_mid_round_asks_again(strategy, tmp_path):
    """Nodes have worked for the round that never ended; what they kept of it has not happened."""
    one = settings(strategy)
    train, test = data_and_test()
    with grid_for(one) as grid:
        whole = serve(grid, one, test)
    answered = []

    def killed_at_work(done, asked):
        answered.append(done)
        if len(answered) == one.clients + 3:  # in the second round
            raise Killed

    with InProcessGrid(honest_app(one, train), one.clients, on_reply=killed_at_work) as grid:
        with pytest.raises(Killed):
            serve(grid, one, test, checkpoint=tmp_path / "run.pt")
        resumed = serve(grid, one, test, checkpoint=tmp_path / "run.pt")
    for name, array in whole.weights.items():
        assert np.array_equal(array.numpy(), resumed.weights[name].numpy())


@pytest.mark.parametrize("strategy", ON_IMAGES)
def test_in_another_run_nodes_have_forgotten_and_it_goes_on(strategy, tmp_path):
    one = settings(strategy)
    _, test = data_and_test()
    with grid_for(one) as grid:
        whole = serve(grid, one, test)
    with grid_for(one, RemoteNodes) as grid, pytest.raises(Killed):
        serve(grid, one, test, on_round=killed_after(1 if one.rounds == 1 else 2), checkpoint=tmp_path / "run.pt")
    with grid_for(one, RemoteNodes) as grid:
        resumed = serve(grid, one, test, checkpoint=tmp_path / "run.pt")
    assert resumed.rejections == ()
    same = all(np.array_equal(a.numpy(), resumed.weights[name].numpy()) for name, a in whole.weights.items())
    assert same == (strategy not in ("scaffold", "topk"))
    assert resumed.accuracy == pytest.approx(whole.accuracy, abs=0.1)


@pytest.mark.parametrize("strategy", ["scaffold", "topk"])
def test_nodes_in_the_servers_process_go_on_with_it(strategy, tmp_path):
    one = settings(strategy)
    _, test = data_and_test()
    with grid_for(one) as grid:
        whole = serve(grid, one, test)
    with grid_for(one) as grid, pytest.raises(Killed):
        serve(grid, one, test, on_round=killed_after(2), checkpoint=tmp_path / "run.pt")
    with grid_for(one) as grid:
        assert_same(serve(grid, one, test, checkpoint=tmp_path / "run.pt"), whole)


def test_rejections_of_earlier_rounds_are_kept(tmp_path):
    one = settings("fedavg")
    train, test = data_and_test()
    with InProcessGrid(honest_app(one, train), one.clients, unavailable=[2]) as grid:
        with pytest.raises(Killed):
            serve(grid, one, test, on_round=killed_after(2), checkpoint=tmp_path / "run.pt")
        result = serve(grid, one, test, checkpoint=tmp_path / "run.pt")
    assert [(each.server_round, each.node) for each in result.rejections] == [(r, 1002) for r in (1, 2, 3, 4)]


@pytest.mark.parametrize("changes", [{"seed": 1}, {"local_learning_rate": 0.02}, {"strategy": "fedprox"}])
def test_a_checkpoint_of_other_settings_is_refused(changes, tmp_path):
    one = settings("fedavg")
    _, test = data_and_test()
    with grid_for(one) as grid:
        serve(grid, one, test, checkpoint=tmp_path / "run.pt")
        with pytest.raises(CheckpointError, match="belongs to another run"):
            serve(grid, replace(one, **changes), test, checkpoint=tmp_path / "run.pt")


@pytest.mark.parametrize("damage", [lambda content: content[:-100], lambda _: b"", lambda _: b"x" * 1000])
def test_a_damaged_checkpoint_is_refused(damage, tmp_path):
    one, path = settings("scaffold"), tmp_path / "run.pt"
    _, test = data_and_test()
    with grid_for(one) as grid:
        serve(grid, one, test, checkpoint=path)
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(CheckpointError, match=r"is damaged|no checkpoint of this version"):
            serve(grid, one, test, checkpoint=path)


def test_a_strategy_that_keeps_no_state_says_so(tmp_path, monkeypatch):
    one = settings("fedavg")
    _, test = data_and_test()

    monkeypatch.setattr(FedAvg, "server", lambda self, context: flower.FedAvg())
    with grid_for(one) as grid, pytest.raises(SettingsError, match="keeps no checkpoints"):
        serve(grid, one, test, checkpoint=tmp_path / "run.pt")
