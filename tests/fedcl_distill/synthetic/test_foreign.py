"""Truth: tensors written as each project's own code writes them (names of files and keys from their repositories)."""

from __future__ import annotations

import pickle

import pytest
import torch

from fedcl_distill.data import DataSpec, Normalisation
from fedcl_distill.errors import DataError, StorageError
from fedcl_distill.synthetic.foreign import read_foreign

SPEC = DataSpec((3, 8, 8), ("a", "b"), Normalisation((0.5, 0.4, 0.3), (0.2, 0.25, 0.5)), (0.0, 1.0))
IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 0, 1, 1])


def test_condensation_keeps_the_last_of_its_experiments(tmp_path):
    torch.save(
        {"data": [[IMAGES * 0, LABELS], [IMAGES, LABELS]], "accs_all_exps": {"ConvNet": [0.5]}}, tmp_path / "res.pt"
    )
    found = read_foreign(tmp_path / "res.pt", SPEC)
    assert torch.equal(found.inputs(), IMAGES)
    assert torch.equal(found.labels, LABELS)
    assert found.spec == SPEC


def test_a_pair_and_its_tiles(tmp_path):
    torch.save([IMAGES, LABELS], tmp_path / "data_best.pt")
    found = read_foreign(tmp_path / "data_best.pt", SPEC, factor=2)
    assert len(found) == 16
    assert found.labels.tolist() == [0] * 8 + [1] * 8
    corner = torch.nn.functional.interpolate(IMAGES[:1, :, :4, :4], size=8, mode="bilinear", align_corners=False)
    assert torch.allclose(found.inputs()[:1], corner, atol=1e-6)


@pytest.mark.parametrize("soft", ["logits", "probabilities"])
def test_two_files_with_soft_labels(tmp_path, soft):
    logits = torch.tensor([[2.0, -1.0], [0.5, 0.0], [-3.0, 1.0], [0.0, 4.0]])
    torch.save(IMAGES, tmp_path / "images_best.pt")
    torch.save(logits if soft == "logits" else logits.softmax(dim=1), tmp_path / "labels_best.pt")
    found = read_foreign(tmp_path / "images_best.pt", SPEC)
    assert torch.allclose(found.labels, logits.softmax(dim=1))
    torch.save(LABELS, tmp_path / "other.pt")
    assert torch.equal(read_foreign(tmp_path / "images_best.pt", SPEC, labels=tmp_path / "other.pt").labels, LABELS)


def test_images_in_another_normalisation_are_the_same_pixels(tmp_path):
    theirs = Normalisation((0.5, 0.4, 0.3), (0.1, 0.1, 0.1))
    torch.save((IMAGES, LABELS), tmp_path / "data.pt")
    found = read_foreign(tmp_path / "data.pt", SPEC, normalisation=theirs)
    assert torch.allclose(found.samples(), theirs.invert(IMAGES), atol=1e-6)


class Harmful:
    def __reduce__(self):
        return (print, ("code ran",))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([IMAGES[:, :1], LABELS], "images of shape"),
        ([IMAGES, LABELS + 1], "labels from 0 to 1"),
        ([IMAGES, LABELS[:2]], "labels from 0 to 1"),
        ([IMAGES, torch.rand(4, 3)], "scores"),
        ([IMAGES, LABELS + 0.5], "labels from 0 to 1"),
        ({"weights": IMAGES}, "no images with labels"),
        (IMAGES, "name the file of its labels"),
        ([1, 2], "no images with labels"),
    ],
)
def test_what_does_not_fit_is_one_error(tmp_path, content, why):
    torch.save(content, tmp_path / "set.pt")
    with pytest.raises(DataError, match=why):
        read_foreign(tmp_path / "set.pt", SPEC)


def test_no_code_in_a_file_runs(tmp_path, capsys):
    (tmp_path / "set.pt").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(DataError, match="no file of plain tensors"):
        read_foreign(tmp_path / "set.pt", SPEC)
    torch.save([Harmful(), LABELS], tmp_path / "zip.pt")
    with pytest.raises(DataError, match="no file of plain tensors"):
        read_foreign(tmp_path / "zip.pt", SPEC)
    with pytest.raises(StorageError, match=r"none\.pt"):
        read_foreign(tmp_path / "none.pt", SPEC)
    assert "code ran" not in capsys.readouterr().out
