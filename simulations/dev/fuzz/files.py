"""What reads files, payloads and settings of others, or what a crash left."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import shutil
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import Any, get_args

import numpy as np
import torch

from fedcl_distill.checkpoint import MAGIC
from fedcl_distill.data import LabelledData, load_csv, load_image_folder, load_npz
from fedcl_distill.data.files import read_idx
from fedcl_distill.data.partition import parse_partitioner
from fedcl_distill.engine import Budget, Callback
from fedcl_distill.engine.loop import Run
from fedcl_distill.errors import CheckpointError, DataError, FedclDistillError, PayloadError, SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.network_sources.experts import OnDisk
from fedcl_distill.networks import Architecture
from fedcl_distill.parameterizations import PARAMETERIZATIONS
from fedcl_distill.statistics import (
    ClassStatistics,
    StatisticsSpec,
    class_statistics,
    decode_statistics,
    encode_statistics,
)
from fedcl_distill.synthetic import Encoding, Expectation, Limits, SyntheticSet, decode, encode
from simulations.commands.options import read_cells
from simulations.dev.fuzz.fuzzer import (
    JUNK,
    Target,
    features,
    images,
    mutate_bytes,
    mutate_container,
    mutate_json,
    mutate_packed,
    mutate_text,
    mutate_tree,
    scratch_file,
    scratch_folder,
)
from simulations.report.blocks import count_torn_lines
from simulations.running.runs import append_record, finished_keys, make_record, read_records
from simulations.scenarios.distil import DistilSettings
from simulations.settings import FederatedSettings
from simulations.tables.comparison import table_of
from simulations.tables.variants import scenarios
from strategies.continual.settings import ContinualSettings
from strategies.federated.compression import read_codec

_IDX = b"\0\0\x08\x03\0\0\0\x02\0\0\0\x02\0\0\0\x03" + bytes(range(12))
_CSV = b"age,chol,where,label\n" + b"63,233,a,0\n41,?,b,1\n50,1e2,a,0\n30.5,-2,b,1\n" * 3
_GZIP = b"\x1f\x8b"


def _read_idx(data: bytes) -> Any:
    return read_idx(scratch_file("images.gz" if data.startswith(_GZIP) else "images", data))


def _mutate_idx(data: bytes, random: Random) -> bytes:
    """What is compressed is changed inside half of the time."""
    if data.startswith(_GZIP) and random.randrange(2):
        try:
            return gzip.compress(mutate_bytes(gzip.decompress(data), random), 1)
        except Exception:  # an earlier change broke it
            return mutate_bytes(data, random)
    return mutate_bytes(data, random)


def _archives() -> Sequence[bytes]:
    made = []
    for compress in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        values, labels = images().samples.numpy()[:, 0], images().labels.numpy()[:, None].astype(np.uint8)
        compress(buffer, train_images=values, train_labels=labels, test_images=values[:6], test_labels=labels[:6])
        made.append(buffer.getvalue())
    return made


def _mutate_archive(data: bytes, random: Random) -> bytes:
    """One array's file is changed and packed again, so that checksums hold."""
    if random.randrange(4) == 0:
        return mutate_bytes(data, random)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        chosen = random.choice(list(members))
        content = members[chosen]
        header, rest = content[:128], content[128:]
        if random.randrange(2):
            members[chosen] = mutate_text(header, random)[:127].ljust(127) + b"\n" + rest
        else:
            members[chosen] = mutate_bytes(content, random)
    except Exception:  # an earlier change broke it
        return mutate_bytes(data, random)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _pictures() -> Sequence[bytes]:
    from PIL import Image

    made = []
    for mode in ("L", "RGB", "P", "1", "LA", "RGBA", "I;16"):
        picture = Image.frombytes("L", (6, 6), images().samples[0].numpy().tobytes()).convert(mode.replace("I;16", "I"))
        for form in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"):
            buffer = io.BytesIO()
            try:
                picture.save(buffer, form)
            except (OSError, ValueError, KeyError):  # this format knows no such mode
                continue
            made.append(buffer.getvalue())
    return made


def _read_folder(data: bytes) -> Any:
    for name in ("folder/a/0.png", "folder/a/1.png", "folder/b/0.png", "folder/b/1.png"):
        scratch_file(name, data)
    try:
        return load_image_folder(scratch_folder() / "folder")
    finally:
        shutil.rmtree(scratch_folder() / "folder")


IDX = Target("idx", lambda: [_IDX, gzip.compress(_IDX)], _read_idx, (DataError,), mutate=_mutate_idx)
NPZ = Target(
    "npz", _archives, lambda data: load_npz(scratch_file("data.npz", data)), (DataError,), mutate=_mutate_archive
)
CSV = Target(
    "csv",
    lambda: [_CSV, _CSV.replace(b"0\n", b"no\n")],
    lambda data: load_csv(scratch_file("table.csv", data), label="label", group="where"),
    (DataError,),
    mutate=mutate_text,
)
IMAGES = Target("images", _pictures, _read_folder, (DataError,))


LIMITS = Limits(
    max_payload_bytes=2**20,
    max_metadata_bytes=2**16,
    max_samples=1000,
    max_values=2**20,
    max_classes=1000,
    max_coded_bits=2**16,
)
_STORES = (
    "pixels",
    "tiles:factor=2",
    "low-rank:rank=1",
    "addressing:bases=2",
    "generator:width=2,generator_steps=1,inversion_steps=1",
)
_MAX_DECODED = 2**16  # values that are worth decoding for every input


def _sets() -> list[bytes]:
    """Every parameterization, depth and kind of label."""
    made = []
    for store in _STORES:
        method = build_method("dm", architecture="convnet:width=2,depth=1", parameterization=store)
        made.append(method.distil(images(), 2, seed=0, budget=Budget(steps=1)))
    made.append(build_method("random").distil(features(), 2, seed=0))
    soft = torch.eye(3)[made[0].labels]
    made.append(SyntheticSet(made[0].arrays, made[0].parameterization, soft, made[0].spec))
    return [encode(one, bits, coding=coding) for one in made for bits in (4, 8, 32) for coding in get_args(Encoding)]


def _check_set(one: SyntheticSet) -> None:
    assert len(one) <= LIMITS.max_samples
    assert one.num_classes <= LIMITS.max_classes
    again = decode(encode(one, 32), LIMITS)
    assert all(torch.equal(again.arrays[name], array) for name, array in one.arrays.items())
    assert torch.equal(again.labels, one.labels)
    assert again.spec == one.spec
    assert again.parameterization == one.parameterization
    if len(one) and len(one) * math.prod(one.sample_shape) <= _MAX_DECODED:
        assert one.inputs().shape == (len(one), *one.sample_shape)
        _expect(one)


def _expect(one: SyntheticSet) -> None:
    try:
        Expectation(one.spec).check(one)
    except PayloadError:
        return
    assert torch.isfinite(one.samples()).all()


def _statistics() -> list[bytes]:
    specs = [
        StatisticsSpec(views=2, architecture="convnet:width=2,depth=1", dimensions=4, moments=2),
        StatisticsSpec(views=2, architecture="convnet:width=2,depth=1", dimensions=4, kind="characteristic", share=0.5),
        StatisticsSpec(views=2, architecture="mlp:width=2", dimensions=2, moments=0, augment=False),
    ]
    data: Sequence[LabelledData] = (images(), images(), features())
    made = [class_statistics(one, spec) for one, spec in zip(data, specs, strict=True)]
    return [encode_statistics(one, bits) for one in made for bits in (8, 16, 32)]


def _check_statistics(one: ClassStatistics) -> None:
    payload = encode_statistics(one, 32)
    again = decode_statistics(payload, LIMITS)
    assert (again.spec, again.domain) == (one.spec, one.domain)
    assert torch.equal(again.class_counts, one.class_counts)
    assert encode_statistics(again, 32) == payload


SETS = Target("sets", _sets, lambda data: decode(data, LIMITS), (PayloadError,), _check_set, mutate_packed)
STATISTICS = Target(
    "statistics",
    _statistics,
    lambda data: decode_statistics(data, LIMITS),
    (PayloadError,),
    _check_statistics,
    mutate_container,
)


_SETTINGS = {"d": DistilSettings, "f": FederatedSettings, "c": ContinualSettings}
_FILES = (
    'd method = ["dm", "mtt"]\nseed = [0, 1]\nimages-per-class = 1\ndistil_seconds = 2\nmethod_settings.clamp = true\n',
    'd [[run]]\nmethod = "random"\n[[run]]\nbyte_budget = 1000\nbits = [4, 8]\n',
    'f strategy = "fedavg"\nrounds = 5\npartition = "dirichlet:0.1"\n[strategy_settings]\nclient_share = 0.5\n',
    'c strategy = "reservoir"\nexperiences = 5\nonline = false\n[strategy_settings]\nreservoir = {}\n',
)
_NAMES: dict[str, tuple[Callable[[str], Any], tuple[str, ...]]] = {
    "a": (Architecture.parse, ("convnet:width=64", "mlp:width=8,precision=bfloat16", "resnet18", "vgg11")),
    "p": (parse_partitioner, ("iid", "dirichlet:0.1", "classes:2", "natural")),
    "c": (read_codec, ("plain", "topk:fraction=0.01,error_feedback=true", "quantised:bits=4,bucket=8")),
    "s": (PARAMETERIZATIONS.build, ("pixels", "tiles:factor=2", "addressing:bases=2,scale=1", "low-rank:rank=null")),
}
_MAX_BUILT = 64


def _read_file(data: bytes) -> list[Any]:
    kind = _SETTINGS.get(data[:1].decode("latin-1"), DistilSettings)
    return read_cells(kind, scratch_file("settings.toml", data[2:]), {})


def _check_cells(cells: list[Any]) -> None:
    for cell in cells[:20]:
        json.dumps(cell.as_record(), sort_keys=True)


def _read_name(data: bytes) -> Any:
    read, _ = _NAMES.get(data[:1].decode("latin-1"), _NAMES["a"])
    found = read(data[1:].decode(errors="replace"))
    if isinstance(found, Architecture) and _is_small(found):
        found.build((1, 8, 8), 3, seed=0)
    return found


def _is_small(architecture: Architecture) -> bool:
    return all(value <= _MAX_BUILT for value in architecture.options.values() if type(value) is int)


SETTINGS = Target(
    "settings", lambda: [one.encode() for one in _FILES], _read_file, (SettingsError,), _check_cells, mutate_text
)
NAMES = Target(
    "names",
    lambda: [(key + text).encode() for key, (_, texts) in _NAMES.items() for text in texts],
    _read_name,
    (SettingsError,),
    mutate=mutate_text,
)


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
