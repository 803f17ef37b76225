"""Truth: the bytes of encode, and the file system."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

from fedcl_distill.errors import PayloadError, StorageError
from fedcl_distill.synthetic import Limits, encode, load, recipe, save
from synthetic_builders import make_set


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_a_file_holds_what_encode_gives(tmp_path, bits):
    path = tmp_path / "new folder" / "set.safetensors"
    size = save(make_set(), path, bits)
    told = replace(make_set(), provenance={**make_set().provenance, "recipe": recipe(make_set())})
    assert path.read_bytes() == encode(told, bits, coding="safetensors")
    assert size == path.stat().st_size
    assert encode(load(path), bits, provenance=False) == encode(make_set(), bits, provenance=False)


def test_the_default_is_exact(tmp_path):
    save(make_set(), tmp_path / "set")
    assert torch.equal(load(tmp_path / "set").arrays["pixels"], make_set().arrays["pixels"])


def test_saving_replaces_and_leaves_nothing_else(tmp_path):
    save(make_set(), tmp_path / "set")
    save(make_set(seed=1), tmp_path / "set")
    assert os.listdir(tmp_path) == ["set"]
    assert load(tmp_path / "set").provenance["seed"] == 1


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(StorageError, match="could not read"):
        load(tmp_path / "absent")
    with pytest.raises(PayloadError, match="not a file"):
        load(tmp_path)


def test_a_file_too_large_is_refused_without_reading_it(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(PayloadError, match="bytes, at most"):
        load(path)


def test_damage_is_reported_with_the_path(tmp_path):
    path = tmp_path / "damaged"
    path.write_bytes(encode(make_set())[:-1])
    with pytest.raises(PayloadError, match=r"damaged: payload is truncated"):
        load(path)
    with pytest.raises(PayloadError, match="at most 10"):
        load(path, Limits(max_payload_bytes=10))


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="could not write"):
        save(make_set(), tmp_path / "file" / "set")
