"""Labels in every form that means one class: the same data; what means several is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fedcl_distill.data import LabelledData, from_arrays, load_npz
from fedcl_distill.data.arrays import numbered
from fedcl_distill.errors import DataError

FORMS: dict[str, Any] = {
    "numbers": [1, 0, 1, 2],
    "floats": [1.0, 0.0, 1.0, 2.0],
    "column": np.array([[1], [0], [1], [2]], np.uint8),
    "tensors": [torch.tensor(1), torch.tensor([0]), torch.tensor(1), torch.tensor(2)],
    "texts": ["b", "a", "b", "c"],
    "bytes": [b"b", b"a", b"b", b"c"],
    "fixed bytes": np.array([b"b", b"a", b"b", b"c"]),
    "objects": np.array(["b", "a", "b", "c"], dtype=object),
    "one-hot": torch.eye(3)[[1, 0, 1, 2]],
    "one-hot rows": [[0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "one-hot booleans": np.eye(3, dtype=bool)[[1, 0, 1, 2]],
    "from one": [2, 1, 2, 3],
    "with gaps": [40, 7, 40, 900],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_numbered_alike_without_phantom_classes(form: str) -> None:
    labels, names = numbered(FORMS[form], None, "data")
    assert (labels.dtype, labels.tolist(), len(names)) == (torch.int64, [1, 0, 1, 2], 3)
    assert from_arrays(np.zeros((4, 2)), FORMS[form]).class_counts.tolist() == [1, 2, 1]
    expected = {"from one": ("1", "2", "3"), "with gaps": ("7", "40", "900"), "bytes": ("a", "b", "c")}
    assert names == expected.get(form, names)


def test_names_make_numbers_positions() -> None:
    assert numbered([2, 0], ("a", "b", "c"), "data")[0].tolist() == [2, 0]
    assert numbered([True, False], None, "data")[1] == ("0", "1")
    with pytest.raises(DataError, match="'d' is none of the classes"):
        numbered(["a", "d"], ("a", "b", "c"), "data")
    with pytest.raises(DataError, match=r"labels span \[0, 3\]"):
        from_arrays(np.zeros((2, 2)), [0, 3], class_names=("a", "b"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[1, 1, 0], [0, 1, 0]], "item 0 has 2 classes at once; multi-label"),
        ([[0, 0, 0], [0, 1, 0]], "item 0 has 0 classes"),
        ([[0.5, 0.5], [0.1, 0.9]], "probabilities"),
        ([[3, 4], [5, 6]], "several numbers"),
        ([1.0, float("nan")], r"whole numbers or texts, got nan \(item 1\)"),
        ([0, -1], "must not be negative"),
        (["a", 1], "all must be of one kind"),
        ([0, None], "item 1 has no label"),
        ([b"\xff", b"a"], "no UTF-8"),
        ([1j, 2j], "one integer or text"),
        (np.zeros((2, 2, 2)), "got shape"),
    ],
)
def test_what_is_not_one_class_is_refused(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        numbered(labels, None, "data")


def test_an_npz_with_labels_from_one_has_no_class_zero(tmp_path) -> None:
    images = np.zeros((4, 5, 5), np.uint8)
    labels = np.array([1, 3, 1, 3])
    np.savez(tmp_path / "x.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    splits = load_npz(tmp_path / "x.npz")
    assert splits.train.class_names == splits.test.class_names == ("1", "3")
    assert splits.test.labels.tolist() == [0, 1, 0, 1]


SPEC = LabelledData.from_tensors(torch.rand(4, 3), torch.tensor([0, 1, 0, 1])).with_spec(value_range=(0.0, 1.0)).spec


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (torch.rand(4, 3).double(), "in float32, got torch.float64"),
        (torch.rand(4, 3).half(), "in float32, got torch.float16"),
        (torch.rand(4, 3, requires_grad=True), r"must not require a gradient; give \.detach"),
        (torch.rand(4, 3).to_sparse(), "dense tensor with values, got a sparse_coo one"),
        (torch.rand(4, 3, device="meta"), "got a meta one"),
        (np.zeros((4, 3), np.float32), "expected a tensor, got a ndarray; from_arrays"),
        ([[0.0] * 3] * 4, "expected a tensor, got a list"),
    ],
)
def test_other_tensors_than_float32_are_refused_and_made_by_from_tensors(samples: Any, message: str) -> None:
    labels = torch.tensor([0, 1, 0, 1])
    with pytest.raises(DataError, match=message):
        LabelledData(samples, labels, SPEC)
    if isinstance(samples, torch.Tensor) and samples.layout == torch.strided and not samples.is_meta:
        made = LabelledData.from_tensors(samples, labels)
        assert (made.samples.dtype, made.samples.requires_grad) == (torch.float32, False)
        assert from_arrays(samples, labels) == made
    else:
        with pytest.raises(DataError, match=message):
            LabelledData.from_tensors(samples, labels)


def test_waveforms_and_volumes_are_refused_clearly() -> None:
    for call in (from_arrays, LabelledData.from_tensors):
        with pytest.raises(DataError, match="look like waveforms"):
            call(torch.rand(4, 1, 16000), torch.arange(4))
    with pytest.raises(DataError, match="volumes are not supported"):
        from_arrays(np.zeros((4, 28, 28, 28), np.uint8), [0, 1, 0, 1])
