"""Settings chosen on held-out training data: what is held out, what is chosen, and what is done only once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fedcl_distill.errors import DataError, SettingsError
from federations import quick
from simulations.attacks import AttackedSettings
from simulations.data import held_out, load_splits
from simulations.flower.app import central_test_data, client_parts
from simulations.running.runs import Kind, Run, read_records
from simulations.scenarios.federated import choose_settings, contests, run_trial
from simulations.tables.comparison import table_of
from simulations.tables.variants import scenarios


def _cell(**changes):
    given = {"data": "digits", "train_limit": 200, "clients": 3, "strategy": "fedavg", "rounds": 2, **changes}
    return AttackedSettings(**vars(quick(**given)))


def _rows(data):
    return {tuple(row) for row in data.samples.flatten(1).tolist()}


def test_a_share_of_every_class_is_held_out_and_no_client_has_it():
    splits = load_splits("digits")
    found = held_out(splits, 0.25, seed=3)
    assert found.test.class_counts.tolist() == [round(0.25 * count) for count in splits.train.class_counts.tolist()]
    assert torch.equal(found.test.class_counts + found.train.class_counts, splits.train.class_counts)
    assert not torch.equal(held_out(splits, 0.25, seed=4).test.samples, found.test.samples)

    cell = _cell(validation_share=0.25)
    held = _rows(central_test_data(cell))
    assert not held & set().union(*(_rows(part) for part in client_parts(cell)))
    assert not held & _rows(central_test_data(replace(cell, validation_share=0.0)))


def test_a_class_of_one_sample_stays_with_the_clients():
    splits = load_splits("digits")
    few = torch.tensor([0, *splits.train.indices_of(1)[:10].tolist()])
    found = held_out(replace(splits, train=splits.train.subset(few)), 0.9, seed=0)
    assert found.train.class_counts.tolist()[:2] == [1, 1]
    with pytest.raises(DataError, match="too few samples to hold out 10 %"):
        held_out(replace(splits, train=splits.train.subset(few[:3])), 0.1, seed=0)


def test_candidates_differ_in_tuned_settings_alone():
    cells = [
        _cell(strategy=strategy, local_epochs=epochs, seed=seed)
        for strategy in ("fedavg", "fedprox")
        for epochs in (1, 5)
        for seed in (3, 4)
    ]
    one, other = contests([*cells, _cell(strategy="one-shot", rounds=1)], ["local-epochs"])[:2]
    assert [cell.strategy for cell in (*one.cells, *other.cells)] == ["fedavg"] * 4 + ["fedprox"] * 4
    assert [(cell.local_epochs, cell.seed) for cell in one.candidates] == [(1, 3), (5, 3)]
    assert all(trial.settings.validation_share == 0.2 for trial in one.trials)


@pytest.mark.parametrize(("name", "reason"), [("epochs", "cannot tune epochs"), ("rounds", "has a single value")])
def test_what_cannot_be_tuned_is_refused(name, reason):
    with pytest.raises(SettingsError, match=reason):
        contests([_cell(), _cell(seed=1)], [name])


def test_the_best_candidate_on_held_out_data_is_chosen_once(tmp_path):
    """The independent truth: the accuracies that trials give when they are run one by one."""
    rates, path = (1e-6, 0.1), tmp_path / "results.jsonl"
    cells = [_cell(local_learning_rate=rate, local_epochs=5, seed=seed) for rate in rates for seed in (0, 1)]
    lone = _cell(strategy="one-shot", rounds=1)
    chosen, lines = choose_settings([*cells, lone], ["local_learning_rate"], path)
    trials = [replace(cell, validation_share=0.2) for cell in cells[::2]]
    alone = [run_trial(trial)["metrics"]["accuracy"] for trial in trials]
    assert alone[1] > alone[0]
    assert chosen == [*cells[2:], lone]
    (line,) = lines
    assert line["metrics"]["chosen"] == {"local_learning_rate": 0.1}
    assert line["metrics"]["accuracies"] == alone
    assert line["settings"]["candidates"] == [{"local_learning_rate": rate} for rate in rates]
    before = path.read_text()
    assert [record["kind"] for record in read_records(path)] == [
        Kind.FEDERATED_TRIAL,
        Kind.FEDERATED_TRIAL,
        Kind.FEDERATED_TUNING,
    ]
    assert choose_settings([*cells, lone], ["local_learning_rate"], path)[0] == chosen
    assert path.read_text() == before
    (scenario,) = scenarios(lines, Kind.FEDERATED_TUNING)
    assert table_of(scenario).rows[0][:2] == ("fedavg", "local learning rate 0.1")


def test_a_candidate_that_diverges_loses(tmp_path):
    cell = _cell(local_learning_rate=1e30)
    record = run_trial(replace(cell, validation_share=0.2))
    assert record["metrics"]["accuracy"] == 0
    assert record["key"] == Run(Kind.FEDERATED_TRIAL, replace(cell, validation_share=0.2)).key
    assert record["metrics"]["failure"]
