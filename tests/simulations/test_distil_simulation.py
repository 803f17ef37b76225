"""Distillations: what is judged is what was saved, at the bits it was saved with."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fedcl_distill.errors import SettingsError
from fedcl_distill.evaluation import FAST, PROTOCOLS, evaluate
from fedcl_distill.networks import Architecture
from fedcl_distill.synthetic import encode, load
from simulations.scenarios.distil import DistilSettings, run_distil

_NETWORK = "convnet:width=8"
_QUICK = DistilSettings(
    train_limit=200,
    method_settings={"architecture": _NETWORK},
    images_per_class=1,
    distil_steps=2,
    bits=4,
    networks=1,
    architecture=_NETWORK,
)


@pytest.fixture(autouse=True)
def short_protocol(monkeypatch):
    short = replace(FAST, train_config=replace(FAST.train_config, epochs=3))
    monkeypatch.setitem(PROTOCOLS, "fast", short)
    return short


def test_the_saved_set_is_what_was_judged(tmp_path, digits, short_protocol):
    record = run_distil(_QUICK, out_dir=tmp_path)
    metrics = record["metrics"]
    saved = load(tmp_path / metrics["files"]["set"])
    architecture = Architecture.parse(_NETWORK)
    judged = evaluate(saved, digits.test, short_protocol, seed=0, architecture=architecture, networks=1)
    assert metrics["accuracies"] == list(judged.accuracies)
    assert metrics["payload_bytes"] == len(encode(saved, 4, provenance=False)) == metrics["payload_bytes_at_bits"]["4"]
    assert list(metrics["payload_bytes_at_bits"]) == ["32", "16", "8", "4", "2"]
    assert metrics["steps"] == 2
    assert metrics["samples"] == 10
    assert (tmp_path / metrics["files"]["picture"]).read_bytes().startswith(b"\x89PNG")
    assert record["settings"]["bits"] == 4
    assert "data_root" not in record["settings"]
    assert json.loads(json.dumps(record, allow_nan=False)) == record


@pytest.mark.parametrize(
    "wrong",
    [
        {"bits": 7},
        {"method": "magic"},
        {"method_settings": {"warp": 9}},
        {"protocol": "lenient"},
        {"images_per_class": 0},
        {"architecture": "transformer"},
        {"distil_steps": -1},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(SettingsError):
        replace(_QUICK, **wrong)
