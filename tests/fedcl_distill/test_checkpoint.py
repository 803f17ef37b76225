"""Truth: a checkpoint comes back as it was saved, or not at all."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import blobs
from fedcl_distill import Budget, build_method
from fedcl_distill.checkpoint import load_checkpoint, restoring, save_checkpoint
from fedcl_distill.errors import CheckpointError
from killing import killed_at_every_call
from stopping import StopAt

STATE = {"weights": torch.arange(6.0).view(2, 3), "step": 7, "losses": [0.5, 0.25], "nested": {"none": None}}


def sealed(content: object) -> bytes:
    """A file whose digest is right, whatever it holds."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    body = buffer.getvalue() if not isinstance(content, bytes) else content
    return b"fedcl_distill checkpoint 3\n" + hashlib.sha256(body).digest() + body


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    assert load_checkpoint(path, "a") is None
    save_checkpoint(path, "a", STATE)
    found = load_checkpoint(path, "a")
    assert found is not None
    assert torch.equal(found.pop("weights"), STATE["weights"])
    assert found == {key: value for key, value in STATE.items() if key != "weights"}
    with pytest.raises(CheckpointError, match="another run"):
        load_checkpoint(path, "b")


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    save_checkpoint(path, "a", STATE)
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(CheckpointError):
            load_checkpoint(path, "a")
        path.write_bytes(whole[:position])
        with pytest.raises(CheckpointError):
            load_checkpoint(path, "a")


class Evil:
    """Unpickling it would end the process."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os._exit, (1,)


@pytest.mark.parametrize(
    "content",
    [
        sealed({"fingerprint": "a", "state": Evil()}),
        sealed(pickle.dumps(Evil())),
        sealed(b""),
        sealed([1, 2]),
        sealed({"fingerprint": "a", "state": 3}),
        sealed({"fingerprint": "a"}),
    ],
    ids=["object", "pickle", "nothing", "list", "number", "no state"],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_forged_files_run_nothing_and_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        load_checkpoint(path, "a")


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(tmp_path, "a")


def test_a_state_that_does_not_fit_is_told_so() -> None:
    with pytest.raises(CheckpointError, match=r"does not fit this run \(KeyError: 'step'\)"), restoring("run.pt"):
        _ = {}["step"]


@pytest.mark.parametrize("part", ["tensors", "optimiser", "supply", "step"])
def test_a_distillation_refuses_a_state_with_a_part_missing(tmp_path: Path, part: str) -> None:
    data, path = blobs(), tmp_path / "run.pt"
    method, budget = build_method("dm", architecture="convnet:width=4,depth=1"), Budget(steps=4)
    method.distil(data, 1, seed=0, budget=budget, checkpoint=path, callbacks=[StopAt(2)])
    body = torch.load(io.BytesIO(path.read_bytes()[27 + 32 :]), weights_only=True)
    del body["state"][part]
    path.write_bytes(sealed(body))
    with pytest.raises(CheckpointError, match="does not fit"):
        method.distil(data, 1, seed=0, budget=budget, checkpoint=path)


def test_saving_killed_at_any_call_leaves_one_state_or_the_other(tmp_path: Path) -> None:
    path, seen = tmp_path / "run.pt", set()
    save_checkpoint(path, "a", {**STATE, "step": 1})
    for _ in killed_at_every_call(lambda: save_checkpoint(path, "a", {**STATE, "step": 2})):
        found = load_checkpoint(path, "a")
        assert found is not None
        seen.add(found["step"])
    assert seen == {1, 2}
