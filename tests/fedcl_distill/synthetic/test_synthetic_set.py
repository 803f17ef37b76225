"""Truth: the documented invariants of SyntheticSet, and arithmetic done by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fedcl_distill.data.spec import Normalisation
from fedcl_distill.errors import DataError
from fedcl_distill.parameterizations import Pixels
from fedcl_distill.synthetic import decode, encode, union
from synthetic_builders import Scaled, make_set


def test_samples_are_inputs_in_unit_values():
    one = make_set((2, 3, 2, 4), normalisation=Normalisation((0.5, 0.4, 0.3), (0.2, 0.1, 1.0)))
    expected = one.arrays["pixels"] * torch.tensor([0.2, 0.1, 1.0]).view(1, 3, 1, 1)
    expected = expected + torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)
    torch.testing.assert_close(one.samples(), expected)
    assert torch.equal(one.inputs(), one.arrays["pixels"])
    assert (len(one), one.sample_shape, one.num_classes) == (2, (3, 2, 4), 2)


def test_class_counts_and_hard_labels_of_soft_labels():
    soft = torch.tensor([[0.1, 0.9, 0.0], [0.6, 0.2, 0.2], [0.0, 1.0, 0.0]])
    one = make_set((3, 5), classes=3, labels=soft)
    assert one.hard_labels.tolist() == [1, 0, 1]
    assert one.class_counts.tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pixels": torch.zeros(2, 3, dtype=torch.float64)}, "must be float32"),
        ({"pixels": torch.tensor([[float("nan")]])}, "NaN or infinity"),
        ({"pixels": torch.tensor([[float("inf")]])}, "NaN or infinity"),
        ({"labels": torch.tensor([0, 1])}, "need int64"),
        ({"labels": torch.tensor([0, 1, 0, 2])}, r"labels outside \[0, 1\]"),
        ({"labels": torch.tensor([0, 1, 0, -1])}, r"labels outside \[0, 1\]"),
        ({"labels": torch.zeros(4, dtype=torch.int32)}, "need int64"),
        ({"labels": torch.zeros(4, 3)}, "need int64"),
        ({"labels": torch.full((4, 2), float("nan"))}, "soft labels hold NaN"),
        ({"class_names": ()}, "no classes"),
        ({"normalisation": Normalisation((0.0,) * 3, (1.0,) * 3)}, "normalisation for 3 channels"),
    ],
)
def test_what_does_not_fit_is_refused(changes, said):
    with pytest.raises(DataError, match=said):
        make_set(**changes)


def scaled_set():
    pixels = make_set((4, 1, 2, 3))
    arrays = Scaled(2.0).start(pixels.inputs()) | {"gain": torch.tensor([1.0, 2.0, 3.0, 4.0])}
    return replace(pixels, arrays=arrays, parameterization=Scaled(2.0)), pixels.inputs()


def test_subset_keeps_the_chosen_decoded_samples_as_pixels():
    one, base = scaled_set()
    chosen = one.subset(torch.tensor([3, 0]))
    assert chosen.parameterization == Pixels()
    torch.testing.assert_close(chosen.inputs(), torch.stack([4 * base[3], base[0]]))
    assert chosen.labels.tolist() == [1, 0]
    assert chosen.class_names == one.class_names


def test_union_of_hard_and_soft_labels():
    one, _ = scaled_set()
    soft = make_set((1, 1, 2, 3), labels=torch.tensor([[0.3, 0.7]]))
    both = union([one, soft])
    assert len(both) == 5
    torch.testing.assert_close(both.inputs(), torch.cat([one.inputs(), soft.inputs()]))
    expected = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.3, 0.7]])
    assert torch.equal(both.labels, expected)
    assert [entry["method"] for entry in both.provenance["union_of"]] == ["test", "test"]


def test_union_of_hard_labels_stays_hard_and_takes_a_provenance():
    both = union([make_set(), make_set(seed=1)], provenance={"round": 3})
    assert both.labels.tolist() == [0, 1, 0, 1] * 2
    assert both.provenance == {"round": 3}


def test_provenance_of_repeated_unions_stays_flat():
    memory = make_set()
    for seed in range(1, 50):
        memory = union([memory, make_set(seed=seed)])
    assert [origin["seed"] for origin in memory.provenance["union_of"]] == list(range(50))
    assert decode(encode(memory)).provenance == memory.provenance


@pytest.mark.parametrize(
    "changes",
    [
        {"class_names": ("a", "b")},
        {"normalisation": Normalisation((0.0,), (1.0,))},
        {"value_range": (0.0, 2.0)},
        {"shape": (4, 1, 5, 3)},
    ],
)
def test_union_of_unlike_sets_is_refused(changes):
    with pytest.raises(DataError, match="cannot unite"):
        union([make_set(), make_set(**changes)])


def test_union_of_nothing_is_refused():
    with pytest.raises(DataError, match="at least one"):
        union([])


def test_as_labelled_data_widens_the_range_to_what_the_samples_span():
    data = make_set().as_labelled_data("mine")
    assert data.name == "mine"
    assert data.value_range[0] == float(data.samples.min()) < 0
    assert data.value_range[1] == max(1.0, float(data.samples.max()))
    assert data.labels.tolist() == [0, 1, 0, 1]
