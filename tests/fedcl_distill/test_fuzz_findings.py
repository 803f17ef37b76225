"""What fuzzing found, as small inputs: each came out as another error than the typed one, or went through unseen."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from fedcl_distill.data import load_npz
from fedcl_distill.data.files import read_idx
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.network_sources.experts import OnDisk
from fedcl_distill.networks import Architecture
from fedcl_distill.parameterizations import PARAMETERIZATIONS


@pytest.mark.parametrize(
    "shape",
    [(2164326399, 4294901760, 0), (2**32 - 1, 2**32 - 1), (1,) * 9, (1,) * 70, (0, 2**32 - 1, 2**32 - 1)],
    ids=["overflow beside 0", "no memory", "nine axes", "seventy axes", "0 beside overflow"],
)
def test_idx_shapes_that_no_array_can_have_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    file = tmp_path / "images"
    file.write_bytes(b"\0\0\x08" + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + b"\0")
    with pytest.raises(DataError, match=r"memory|dimensions"):
        read_idx(file)


def test_an_npy_header_that_breaks_the_tokeniser_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((2, 3, 3), np.uint8))
    content = buffer.getvalue().replace(b"(2, 3, 3)", b"((2, 3, 3")  # tokenize.TokenError, which is no SyntaxError
    file = tmp_path / "data.npz"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("train_images.npy", content)
    with pytest.raises(DataError, match="train_images cannot be read"):
        load_npz(file)


def test_an_archive_that_claims_more_than_there_is_memory_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "data.npz"
    np.savez_compressed(file, train_images=np.zeros((10, 100, 100), np.uint8))
    assert file.stat().st_size < 2000
    monkeypatch.setattr("fedcl_distill.data.arrays._memory", lambda: 50_000)
    with pytest.raises(DataError, match="more than this machine's memory"):
        load_npz(file)


@pytest.mark.parametrize("number", ["²", "9" * 5000, "٣", "-1", "1_0", ""])
def test_numbers_that_are_no_plain_digits_are_refused(number: str) -> None:
    with pytest.raises(SettingsError, match="width must be a whole number"):
        Architecture.parse(f"convnet:width={number}")


def test_a_value_nested_too_deep_to_parse_is_refused() -> None:
    with pytest.raises(SettingsError):
        PARAMETERIZATIONS.build("tiles:factor=" + "[" * 100_000)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int32])
def test_an_expert_of_another_type_is_trained_anew(tmp_path: Path, dtype: torch.dtype) -> None:
    store = OnDisk(tmp_path, 5)
    path = tmp_path / "run-0000" / "snapshot-0000.safetensors"
    path.parent.mkdir()
    path.write_bytes(save({"weights": torch.ones(5, dtype=dtype)}, metadata={"sha256": "0" * 64}))
    assert store.load(0, 0) is None
