"""Truth: payloads written, and decoded, by the code of format 1 before there was a DataSpec (commit fdeac3f)."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
import torch

from fedcl_distill.synthetic import decode, encode

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "payloads.json").read_text())


def digest(values: torch.Tensor) -> str:
    return hashlib.sha256(values.numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("name", GOLDEN)
def test_old_payloads_decode_to_the_same_values(name: str) -> None:
    golden = GOLDEN[name]
    one = decode(base64.b64decode(golden["payload"]))
    assert {key: digest(array) for key, array in one.arrays.items()} == golden["arrays"]
    assert (digest(one.labels), one.labels.ndim == 2) == (golden["labels"], golden["soft"])
    assert (one.parameterization.name, len(one)) == (golden["parameterization"], golden["samples"])
    assert float(one.samples().double().mean()) == pytest.approx(golden["mean_of_samples"], rel=1e-5, abs=1e-6)
    assert list(one.sample_shape) == golden["sample_shape"]
    assert list(one.class_names) == golden["class_names"]
    assert (list(one.normalisation.mean), list(one.normalisation.std)) == (golden["mean"], golden["std"])
    assert list(one.value_range) == golden["value_range"]
    assert dict(one.provenance) == golden["provenance"]
    assert (one.allow_hflip, one.spec.tasks) == (False, None)  # who never said that mirroring is safe did not allow it


@pytest.mark.parametrize("name", [name for name in GOLDEN if not name.startswith("features")])
def test_what_an_old_payload_held_is_written_in_the_same_bytes(name: str) -> None:
    payload = base64.b64decode(GOLDEN[name]["payload"])
    assert encode(decode(payload), GOLDEN[name]["bits"], coding="safetensors") == payload
