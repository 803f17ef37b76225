"""What our own runs leave and find again: checkpoints, experts, results."""

from __future__ import annotations

import hashlib
import io
from functools import cache
from random import Random
from typing import Any

import torch

from fedcl_distill.checkpoint import MAGIC
from fedcl_distill.engine import Budget, Callback
from fedcl_distill.engine.loop import Run
from fedcl_distill.errors import CheckpointError, FedclDistillError
from fedcl_distill.methods import build_method
from fedcl_distill.network_sources.experts import OnDisk
from simulations.fuzz.mutation import JUNK, mutate_json, mutate_tree
from simulations.fuzz.samples import images
from simulations.fuzz.scratch import scratch_file, scratch_folder
from simulations.fuzz.target import Target
from simulations.report.source import count_torn_lines
from simulations.running.records import append_record, finished_keys, make_record, read_records
from simulations.tables.arms import scenarios
from simulations.tables.comparison import table_of

_START = len(MAGIC) + hashlib.sha256().digest_size
_METHOD = build_method("dm", architecture="convnet:width=2,depth=1")
_TENSORS = (
    torch.zeros(0),
    torch.tensor(float("nan")),
    torch.ones(3, 1, 6, 6),
    torch.ones(2, 2).half(),
    torch.ones(1) > 0,
)
_WEIGHTS = 5


class _Stop(Callback):
    def on_step(self, run: Run) -> None:
        raise KeyboardInterrupt


@cache
def _checkpoint() -> bytes:
    path = scratch_folder() / "seed.pt"
    _METHOD.distil(images(), 1, seed=0, budget=Budget(steps=2), checkpoint=path, callbacks=[_Stop()])
    return path.read_bytes()


class _NoMore(Callback):
    """What was read is put in place and no step is done: a forged state may well break the first one."""

    def on_start(self, run: Run) -> None:
        run.ended = True


def _resume(data: bytes) -> Any:
    path = scratch_file("run.pt", data)
    return _METHOD.distil(images(), 1, seed=0, budget=Budget(steps=2), checkpoint=path, callbacks=[_NoMore()])


def _mutate_checkpoint(data: bytes, random: Random) -> bytes:
    """What it holds is changed and sealed again, for a wrong digest ends everything."""
    try:
        content = torch.load(io.BytesIO(data[_START:]), weights_only=True)
    except Exception:  # an earlier change broke it
        content = torch.load(io.BytesIO(_checkpoint()[_START:]), weights_only=True)
    state = mutate_tree(content["state"], random, (*JUNK, *_TENSORS))
    buffer = io.BytesIO()
    torch.save({**content, "state": state}, buffer)
    return MAGIC + hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue()


def _store() -> OnDisk:
    return OnDisk(scratch_folder() / "experts", _WEIGHTS)


def _experts() -> list[bytes]:
    _store().save(0, 0, torch.arange(float(_WEIGHTS)))
    return [next((scratch_folder() / "experts").rglob("*.safetensors")).read_bytes()]


def _read_expert(data: bytes) -> Any:
    scratch_file("experts/run-0000/snapshot-0000.safetensors", data)
    return _store().load(0, 0)


def _check_expert(weights: Any) -> None:
    if weights is not None:
        assert weights.dtype == torch.float32
        assert weights.shape == (_WEIGHTS,)


def _mutate_safetensors(data: bytes, random: Random) -> bytes:
    start = 8 + int.from_bytes(data[:8], "little")
    header = mutate_json(data[8:start], random)
    return len(header).to_bytes(8, "little") + header + data[start:]


def _results() -> list[bytes]:
    path = scratch_folder() / "seeds.jsonl"
    for kind, settings, metrics in (
        ("distil", {"data": "digits", "method": "dm", "seed": 0}, {"accuracy": 0.5, "payload_bytes": 100}),
        ("distil", {"data": "digits", "method": "random", "seed": 1, "images_per_class": 2}, {"accuracy": 0.25}),
        (
            "federated",
            {"data": "digits", "strategy": "fedavg", "seed": 0},
            {"rounds": [{"accuracy": 0.5, "bytes_up": 1}]},
        ),
        ("continual", {"data": "digits", "strategy": "naive", "seed": 0}, {"matrix": [[0.5, 0.1], [0.2, 0.9]]}),
    ):
        append_record(path, make_record(kind, settings, metrics, 1.5))
    lines = path.read_bytes().splitlines()
    return [*lines, b"\n".join(lines) + b"\n", lines[0] + b"\n" + lines[1][:40]]


def _read_results(data: bytes) -> None:
    path = scratch_file("results.jsonl", data)
    records = list(read_records(path))
    assert finished_keys(path) == {record["key"] for record in records}
    assert count_torn_lines([path]) >= 0
    for kind in ("distil", "federated", "continual", "federated-continual"):
        for scenario in scenarios(records, kind):
            table_of(scenario)


def _mutate_results(data: bytes, random: Random) -> bytes:
    lines = data.split(b"\n")
    place = random.randrange(len(lines))
    lines[place] = mutate_json(lines[place], random)
    return b"\n".join(lines)


CHECKPOINTS = Target(
    "checkpoints", lambda: [_checkpoint()], _resume, (CheckpointError, FedclDistillError), mutate=_mutate_checkpoint
)
EXPERTS = Target("experts", _experts, _read_expert, (), _check_expert, _mutate_safetensors)
RESULTS = Target("results", _results, _read_results, (), mutate=_mutate_results)
