"""Who lives through what, and when."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedcl_distill.errors import SettingsError
from strategies.continual import class_groups
from strategies.federated_continual import ClientSchedule, read_stream
from streams import CLASSES, quick, train_and_test


def test_streams_by_hand():
    stay = ClientSchedule((0, 1, 2))
    assert read_stream("same")(2, 3, 0) == (stay, stay)
    assert read_stream("late:clients=1,after=2")(2, 3, 0) == (stay, ClientSchedule((0, 1, 2), joins=2))
    assert read_stream("departing:clients=1,after=2")(2, 3, 0) == (stay, ClientSchedule((0, 1, 2), leaves=2))


def test_positions_by_hand():
    late, leaving = ClientSchedule((4, 7, 5), joins=2), ClientSchedule((0, 1, 2), leaves=1)
    assert [late.position_at(stage) for stage in range(7)] == [None, None, 0, 1, 2, None, None]
    assert [leaving.position_at(stage) for stage in range(4)] == [0, None, None, None]


@given(clients=st.integers(1, 6), experiences=st.integers(1, 7), seed=st.integers(0, 2**40))
def test_shuffled_clients_have_every_experience_once(clients, experiences, seed):
    itineraries = read_stream("shuffled")(clients, experiences, seed)
    assert itineraries == read_stream("shuffled")(clients, experiences, seed)
    assert [sorted(one.order) for one in itineraries] == [list(range(experiences))] * clients


def test_shuffled_clients_differ_and_so_do_seeds():
    first, other = (read_stream("shuffled")(5, 5, seed) for seed in (0, 1))
    assert len(set(first)) > 1
    assert first != other


def test_stages_end_when_the_last_client_does():
    assert quick(stream="same").stages == 3
    assert quick(stream="late:clients=2,after=2").stages == 5
    assert quick(stream="departing").stages == 3


@pytest.mark.parametrize(
    "stream", ["sorted", "late:clients=3", "late:clients=0", "late:after=0", "late:after=1.5", "departing:who=1", ""]
)
def test_streams_that_make_no_sense_are_refused_at_once(stream):
    with pytest.raises(SettingsError):
        quick(stream=stream)


@pytest.mark.parametrize(
    "wrong",
    [{"experiences": 0}, {"memory_images_per_class": 0}, {"memory_bytes": 0}, {"scenario": "task"}, {"rounds": 0}],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(SettingsError):
        quick(**wrong)


@given(classes=st.integers(1, 40), experiences=st.integers(1, 40), seed=st.none() | st.integers(0, 9))
def test_class_groups_hold_every_class_once_and_differ_by_one_at_most(classes, experiences, seed):
    if experiences > classes:
        with pytest.raises(SettingsError, match=f"1 to {classes} experiences"):
            class_groups(classes, experiences, seed)
        return
    groups = class_groups(classes, experiences, seed)
    assert sorted(label for group in groups for label in group) == list(range(classes))
    sizes = [len(group) for group in groups]
    assert len(groups) == experiences
    assert max(sizes) - min(sizes) <= 1


def test_experiences_hold_all_data_of_their_classes():
    train, _ = train_and_test()
    settings = quick(order_seed=4)
    parts = settings.experiences_of(train)
    for part, group in zip(parts, class_groups(CLASSES, 3, 4), strict=True):
        assert set(part.labels.tolist()) == set(group)
    assert torch.equal(torch.cat([part.labels for part in parts]).sort().values, train.labels.sort().values)


def test_domains_change_what_the_same_samples_look_like():
    train, _ = train_and_test()
    parts = quick(scenario="domain", domain="permutation").experiences_of(train)
    assert all(torch.equal(part.labels, train.labels) for part in parts)
    assert torch.equal(parts[0].samples, train.samples)
    assert not torch.equal(parts[1].samples, parts[2].samples)
    with pytest.raises(SettingsError, match="unknown domain"):
        quick(scenario="domain", domain="colour").experiences_of(train)


def test_a_client_has_its_experiences_in_its_own_order():
    train, _ = train_and_test()
    settings = quick(stream="shuffled")
    for partition, itinerary in enumerate(settings.itineraries):
        stream = settings.stream_of(train, partition)
        found = [sorted(set(part.labels.tolist())) for part in stream.experiences]
        assert found == [class_groups(CLASSES, 3, None)[index] for index in itinerary.order]


def test_an_experience_without_samples_is_passed_over():
    train, _ = train_and_test()
    stream = quick().stream_of(train.subset((train.labels != 2).nonzero().flatten()), 0)
    assert [stream.position_at(stage) for stage in range(4)] == [0, 1, 2, None]
    stream = quick().stream_of(train.subset((train.labels > 3).nonzero().flatten()), 0)
    assert [stream.position_at(stage) for stage in range(4)] == [None, None, 2, None]
