"""Sets that other projects published, as tensors in ``.pt`` files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedcl_distill.data.spec import DataSpec, Normalisation
from fedcl_distill.errors import DataError, StorageError
from fedcl_distill.files import place
from fedcl_distill.parameterizations import Pixels, Tiles
from fedcl_distill.synthetic.set import SyntheticSet

_ROUNDING = 1e-3  # by which rows of probabilities may miss a sum of 1


def read_foreign(
    path: str | os.PathLike[str],
    spec: DataSpec,
    *,
    labels: str | os.PathLike[str] | None = None,
    normalisation: Normalisation | None = None,
    factor: int = 1,
) -> SyntheticSet:
    """The set in a file of another project's release.

    Known forms, each read by ``torch.load(weights_only=True)``, which runs no code:

    * DC, DSA, DM (VICO-UoE/DatasetCondensation): a dictionary whose ``data`` lists pairs [images, labels]; the last
      counts.
    * IDC, NCFM: a list [images, labels], for IDC with ``factor=2``.
    * MTT, TESLA, DATM, DD-Ranking: images and labels in two files, ``images….pt`` beside ``labels….pt``.

    Args:
        path: of the set, or of its images.
        spec: of the real data: sample shape, class names, normalisation and value range.
        labels: of the labels, where they are in a file of their own under another name.
        normalisation: by which the stored images are normalised, where it is another than ``spec.normalisation``: for
            CIFAR-10 many authors take deviations (0.2023, 0.1994, 0.2010). Give ``Normalisation((0, …), (1, …))`` for
            unit pixels. Images after ZCA whitening cannot be read: their whitening is not in the file.
        factor: tiles along each side of a stored image, which decodes to factor² samples (IDC).

    Returns:
        A set of pixels, or of tiles, whose labels are int64 (n,), or float32 (n, classes) probabilities; logits go
        through a softmax.

    Raises:
        StorageError: a file cannot be read.
        DataError: it holds something else, or images or labels do not fit ``spec``.
    """
    images, found = _images_and_labels(place(path), labels)
    if images.ndim != 1 + len(spec.sample_shape) or tuple(images.shape[1:]) != spec.sample_shape:
        raise DataError(f"{path}: images of shape {tuple(images.shape[1:])}, the data have {spec.sample_shape}")
    if normalisation is not None:
        images = spec.normalisation.apply(normalisation.invert(images.float()))
    how = Tiles(factor) if factor > 1 else Pixels()
    given = _labels(found, len(images), spec.num_classes, path)
    return SyntheticSet(
        {"pixels": images.float().contiguous()},
        how,
        given.repeat_interleave(factor**2, dim=0),
        spec,
        {"method": Path(path).stem, "source": Path(path).name},
    )


def _images_and_labels(path: Path, labels: str | os.PathLike[str] | None) -> tuple[Tensor, Tensor]:
    content = _load(path)
    if isinstance(content, dict) and isinstance(content.get("data"), list) and content["data"]:
        content = content["data"][-1]
    if isinstance(content, Tensor):
        beside = Path(labels) if labels is not None else path.with_name(path.name.replace("images", "labels", 1))
        if beside == path:
            raise DataError(f"{path} holds one tensor; name the file of its labels")
        content = [content, _load(beside)]
    pair = content[:2] if isinstance(content, list | tuple) else ()
    if len(pair) < 2 or not all(isinstance(one, Tensor) for one in pair):
        raise DataError(f"{path} holds no images with labels in a form that is known")
    return pair[0].detach(), pair[1].detach()


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise StorageError(f"could not read {path}: {error.strerror or error}") from error
    except Exception as error:  # a stranger's bytes fail in whatever way they like
        raise DataError(f"{path} is no file of plain tensors: {str(error).splitlines()[0][:200]}") from error


def _labels(found: Tensor, count: int, classes: int, path: str | os.PathLike[str]) -> Tensor:
    if found.ndim == 1 and len(found) == count and not found.is_complex():
        whole = found.long()
        if bool((whole == found).all()) and bool(((whole >= 0) & (whole < classes)).all()):
            return whole
    elif found.shape == (count, classes) and found.is_floating_point():
        soft = found.float()
        is_probable = bool((soft >= 0).all()) and bool(((soft.sum(dim=1) - 1).abs() < _ROUNDING).all())
        return soft if is_probable else soft.softmax(dim=1)
    raise DataError(
        f"{path}: {count} images of {classes} classes need ({count},) labels from 0 to {classes - 1} or "
        f"({count}, {classes}) scores, got {tuple(found.shape)} of {found.dtype}"
    )
