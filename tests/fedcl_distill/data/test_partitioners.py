"""Partitioners against what defines them: exactness, sizes, closed forms of the Dirichlet distribution."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcl_distill.data import (
    IID,
    ClassesPerClient,
    DataSpec,
    Dirichlet,
    LabelledData,
    Natural,
    Normalisation,
    Partitioner,
    parse_partitioner,
    partition,
)
from fedcl_distill.errors import DataError, SettingsError


def labelled(labels: list[int] | torch.Tensor, classes: int, groups: list[int] | None = None) -> LabelledData:
    """Data whose only feature of a sample is its position, so that a subset shows where it came from."""
    labels = torch.as_tensor(labels, dtype=torch.int64)
    return LabelledData(
        samples=torch.arange(len(labels), dtype=torch.float32)[:, None],
        labels=labels,
        spec=DataSpec(
            sample_shape=(1,),
            class_names=tuple(f"class {c}" for c in range(classes)),
            normalisation=Normalisation((0.0,), (1.0,)),
            value_range=(0.0, float(max(1, len(labels)))),
        ),
        groups=None if groups is None else torch.tensor(groups, dtype=torch.int64),
        group_names=tuple("abcdefgh") if groups is not None else (),
    )


def balanced(classes: int, per_class: int) -> LabelledData:
    return labelled(torch.arange(classes * per_class) % classes, classes)


def shares(data: LabelledData, rule: Partitioner, clients: int, seed: int, min_size: int = 0) -> torch.Tensor:
    """float64 (classes, clients): which share of each class each client got."""
    parts = partition(data, rule, clients, seed=seed, min_size=min_size)
    return torch.stack([part.class_counts for part in parts], dim=1).double() / data.class_counts[:, None]


@st.composite
def cases(draw: st.DrawFn) -> tuple[LabelledData, Partitioner, int, int, int]:
    classes = draw(st.integers(1, 6))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=80))
    rule = draw(
        st.one_of(
            st.just(IID()),
            st.floats(1e-8, 1e6).map(Dirichlet),
            st.integers(1, classes).map(ClassesPerClient),
            st.just(Natural()),
        )
    )
    groups = draw(st.lists(st.integers(0, 7), min_size=len(labels), max_size=len(labels)))
    clients = draw(st.integers(1, 12))
    return (
        labelled(labels, classes, groups),
        rule,
        clients,
        draw(st.integers(0, 5)),
        draw(st.integers(0, 2**40)),
    )


@settings(max_examples=300, deadline=None)
@given(cases())
def test_every_sample_goes_to_exactly_one_client(
    case: tuple[LabelledData, Partitioner, int, int, int],
) -> None:
    data, rule, clients, min_size, seed = case
    try:
        parts = rule.split(data, clients, seed=seed, min_size=min_size)
    except DataError:
        # Only these two may refuse data that are large enough.
        assert clients * min_size > len(data) or isinstance(rule, ClassesPerClient | Natural)
        return
    assert len(parts) == clients
    assert sorted(index for part in parts for index in part.tolist()) == list(range(len(data)))
    assert all(part.dtype == torch.int64 and part.tolist() == sorted(part.tolist()) for part in parts)
    assert min(len(part) for part in parts) >= min_size


@pytest.mark.parametrize("text", ["iid", "dirichlet:0.3", "classes:2"])
def test_a_seed_fixes_the_partition_and_no_global_generator_is_touched(text: str) -> None:
    data = balanced(5, 40)

    def draw(seed: int) -> list[list[int]]:
        parts = parse_partitioner(text).split(data, 10, seed=seed, min_size=1)
        return [part.tolist() for part in parts]

    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    first = draw(1)
    torch.manual_seed(99)
    assert draw(1) == first
    assert draw(2) != first
    torch.set_rng_state(states[0])
    draw(3)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert random.getstate() == states[2]


def test_iid_sizes_differ_by_one_at_most_and_the_order_is_shuffled() -> None:
    parts = partition(balanced(3, 35), IID(), 10, seed=4)
    assert sorted(len(part) for part in parts) == [10] * 5 + [11] * 5
    assert all(part.class_counts.max() < 10 for part in parts)


@pytest.mark.parametrize("alpha", [0.05, 0.5, 5.0])
def test_dirichlet_concentration_matches_the_closed_form(alpha: float) -> None:
    # Shares p ~ Dir(alpha, …, alpha) over K clients have E[sum p²] = (alpha + 1) / (K alpha + 1).
    clients, data = 10, balanced(60, 500)
    simpson = torch.cat([shares(data, Dirichlet(alpha), clients, seed).square().sum(1) for seed in range(6)])
    expected = (alpha + 1) / (clients * alpha + 1)
    standard_error = float(simpson.std()) / len(simpson) ** 0.5
    assert float(simpson.mean()) == pytest.approx(expected, abs=4 * standard_error + 0.002)


def test_dirichlet_with_alpha_1_over_two_clients_is_uniform() -> None:
    # Dir(1, 1) is the uniform distribution: the larger share has mean 3/4 and variance 1/48.
    largest = torch.cat([shares(balanced(60, 500), Dirichlet(1.0), 2, seed).max(1).values for seed in range(6)])
    assert float(largest.mean()) == pytest.approx(0.75, abs=4 * (1 / 48 / len(largest)) ** 0.5)
    assert float(largest.var()) == pytest.approx(1 / 48, rel=0.25)


def test_large_alpha_gives_equal_shares_and_tiny_alpha_one_owner_a_class() -> None:
    data = balanced(10, 1000)
    assert torch.allclose(shares(data, Dirichlet(1e8), 10, 0), torch.full((10, 10), 0.1).double(), atol=0.002)
    assert torch.equal(shares(data, Dirichlet(1e-9), 10, 0).max(1).values, torch.ones(10).double())


def test_dirichlet_serves_100_clients_at_alpha_001() -> None:
    data = balanced(10, 600)
    for seed in range(5):
        parts = partition(data, Dirichlet(0.01), 100, seed=seed, min_size=20)
        sizes = [len(part) for part in parts]
        assert min(sizes) >= 20
        assert sum(sizes) == len(data)
    # The tightest request leaves no freedom in the sizes at all.
    assert {len(part) for part in partition(data, Dirichlet(0.01), 100, min_size=60)} == {60}


def test_filling_up_takes_from_the_largest_and_leaves_the_others_alone() -> None:
    data = balanced(10, 600)
    before = [len(p) for p in partition(data, Dirichlet(0.1), 20, seed=3, min_size=0)]
    after = [len(p) for p in partition(data, Dirichlet(0.1), 20, seed=3, min_size=150)]
    assert min(before) < 150
    for old, new in zip(before, after, strict=True):
        assert new == 150 if old < 150 else new <= old
        assert new == old or old < 150 or new >= max(after) - 1


@settings(max_examples=150, deadline=None)
@given(
    counts=st.lists(st.integers(0, 60), min_size=1, max_size=8),
    clients=st.integers(1, 15),
    classes=st.integers(1, 8),
    seed=st.integers(0, 1000),
)
def test_classes_per_client_is_exact_wherever_possible(
    counts: list[int], clients: int, classes: int, seed: int
) -> None:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    data = labelled(labels, len(counts))
    present = sum(count > 0 for count in counts)
    # Each class serves at most as many clients as it has samples. This is necessary and sufficient.
    possible = classes <= present <= clients * classes <= sum(min(count, clients) for count in counts)
    if not possible:
        with pytest.raises(DataError):
            ClassesPerClient(classes).split(data, clients, seed=seed)
        return
    parts = ClassesPerClient(classes).split(data, clients, seed=seed)
    held = [set(data.labels[part].tolist()) for part in parts]
    assert all(len(classes_held) == classes for classes_held in held)
    assert set().union(*held) == {label for label, count in enumerate(counts) if count}


def test_classes_per_client_balances_unequal_classes() -> None:
    data = labelled([0] * 900 + [1] * 100, 2)
    parts = partition(data, ClassesPerClient(1), 10, seed=0)
    assert [len(part) for part in parts] == [100] * 10
    assert sum(int(part.class_counts[0] > 0) for part in parts) == 9


def test_classes_per_client_mixes_the_pairs() -> None:
    parts = partition(balanced(10, 500), ClassesPerClient(2), 100, seed=0)
    pairs = {tuple(part.class_counts.nonzero().flatten().tolist()) for part in parts}
    assert len(pairs) > 30  # of 45; dealing classes in one fixed order would give 5


def test_classes_per_client_refuses_a_minimum_size_it_cannot_reach() -> None:
    with pytest.raises(DataError, match="min_size is 40"):
        partition(labelled([0] * 90 + [1] * 10, 2), ClassesPerClient(1), 2, min_size=40)


def test_natural_groups_become_clients_in_order_and_empty_groups_are_none() -> None:
    data = labelled([0, 1, 0, 1, 1], 2, groups=[3, 0, 3, 3, 6])
    parts = partition(data, "natural")
    assert [part.samples.flatten().tolist() for part in parts] == [[1], [0, 2, 3], [4]]
    assert [part.name for part in parts] == ["data/0", "data/1", "data/2"]
    with pytest.raises(DataError, match="3 natural groups, 4 clients"):
        partition(data, Natural(), 4)
    with pytest.raises(DataError, match="client 1 gets 1 samples, min_size is 2"):
        partition(labelled([0] * 6, 1, groups=[0, 0, 0, 0, 0, 1]), Natural(), min_size=2)
    with pytest.raises(DataError, match="no natural groups"):
        Natural().split(balanced(2, 5), 2, seed=0)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("iid", IID()),
        (" IID ", IID()),
        ("dirichlet:0.1", Dirichlet(0.1)),
        ("dirichlet:1e-3", Dirichlet(0.001)),
        ("classes:2", ClassesPerClient(2)),
        ("natural", Natural()),
    ],
)
def test_text_names_a_partitioner(text: str, rule: Partitioner) -> None:
    assert parse_partitioner(text) == rule


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "iid:3",
            "dirichlet",
            "dirichlet:",
            "dirichlet:x",
            "dirichlet:0",
            "dirichlet:-1",
            "dirichlet:nan",
        ),
        *("dirichlet:inf", "classes:0", "classes:1.5", "classes", "natural:1", "shards:2"),
    ],
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"partitioner|alpha must be|classes must be"):
        parse_partitioner(text)


def test_impossible_requests_are_refused() -> None:
    data = balanced(2, 5)
    with pytest.raises(SettingsError, match="clients"):
        partition(data, IID(), 0)
    with pytest.raises(SettingsError, match="min_size"):
        partition(data, IID(), 2, min_size=-1)
    with pytest.raises(DataError, match="10 samples are too few for 4 clients of at least 3"):
        partition(data, IID(), 4, min_size=3)
    with pytest.raises(SettingsError, match="number of clients must be given"):
        partition(data, IID())


class Broken:
    """Loses the last sample."""

    def split(self, data: LabelledData, clients: int, *, seed: int, min_size: int = 1) -> list[torch.Tensor]:
        return list(torch.arange(len(data) - 1).tensor_split(clients))


def test_a_foreign_partitioner_that_loses_samples_is_caught() -> None:
    with pytest.raises(DataError, match="loses or repeats"):
        partition(balanced(2, 5), Broken(), 2)


def test_parts_keep_classes_and_normalisation() -> None:
    data = balanced(4, 10)
    for part in partition(data, ClassesPerClient(1), 4):
        assert part.class_names == data.class_names
        assert part.normalisation is data.normalisation
        assert torch.equal(part.labels, data.labels[part.samples.flatten().long()])
