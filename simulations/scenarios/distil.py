"""Distil, judge, measure; one run, or a table of all methods at one budget."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from fedcl_distill.data import LabelledData, Splits
from fedcl_distill.engine import Budget, ByteBudget, Size, finished
from fedcl_distill.evaluation import Evaluation, evaluate, find_protocol
from fedcl_distill.methods import build_method
from fedcl_distill.networks import Architecture
from fedcl_distill.settings import Count, Natural, NonNegative, settings
from fedcl_distill.synthetic import BITS, SyntheticSet, decode, encode, encoded_bytes, load, save, save_png
from fedcl_distill.synthetic.quantise import Bits
from simulations.costs import Meter
from simulations.data import load_splits, tell_notes
from simulations.formats import number
from simulations.running.pool import Outcome, PoolSettings, run_in_processes
from simulations.running.progress import ShownDistillation, Silent, Stage, Watcher
from simulations.running.runs import Kind, Record, Run, append_record, make_record, read_records, settings_key
from simulations.settings import MethodName, ProtocolName, without_places

_PICTURE_COLUMNS = 10
_PICTURE_PIXELS, _MAX_IMAGE_PIXELS = 360, 72  # wide as a whole; high, a single image


@settings
class DistilSettings:
    """Settings of one distillation and of its evaluation.

    Attributes:
        data: name of the data set, or path of an .npz file or image folder.
        data_root: folder to search first; a place on this computer, and no part of a result's settings.
        train_limit: at most so many training samples, drawn at random; all by default.
        method: of distillation or selection, one that ``fedcl-distill methods`` lists.
        method_settings: the method's own settings, such as ``init=noise`` or
            ``architecture=convnet:width=64``; ``dm.clamp=true`` is for dm alone.
        images_per_class: synthetic samples of each class.
        byte_budget: largest payload in bytes at ``bits`` a value, in place of images per class.
        distil_steps: optimisation steps; the method's own number where neither steps nor seconds are given.
        distil_seconds: seconds after which distillation stops (not reproducible bit by bit).
        distil_clock: of these seconds: ``wall``, or ``cpu`` for the CPU time of all threads, which hangs less on
            what else the machine does.
        distil_plateau: also stop once the loss no longer falls from one window of so many steps to the next; needs
            steps or seconds beside it.
        bits: of each stored value, 2, 4, 8, 16 or 32; what is judged is what is left after rounding to these.
        protocol: by which networks are trained on the result: ``field`` is the literature's, ``fast`` is for small
            machines.
        networks: how many are trained to judge, each from its own seed; the protocol's number by default.
        architecture: of the networks that judge, such as ``convnet:width=64``; the protocol's by default.
        device: where to compute, such as cpu or cuda.
        seed: fixes the result (same machine and thread count, budget in steps).

    Raises:
        SettingsError: on construction, if a value is out of range or unknown.
    """

    data: str = "digits"
    data_root: str | None = None
    train_limit: Count | None = None
    method: MethodName = "dm"
    method_settings: Mapping[str, Any] = field(default_factory=dict)
    images_per_class: Count = 10
    byte_budget: Count | None = None
    distil_steps: Natural | None = None
    distil_seconds: NonNegative | None = None
    distil_clock: Literal["wall", "cpu"] = "wall"
    distil_plateau: Count | None = None
    bits: Bits = 8
    protocol: ProtocolName = "fast"
    networks: Count | None = None
    architecture: str | None = None
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.architecture is not None:
            Architecture.parse(self.architecture)
        build_method(self.method, **self.method_settings)
        _ = self.budget

    @property
    def budget(self) -> Budget | None:
        """Steps and seconds; None for the method's own."""
        return Budget.if_given(self.distil_steps, self.distil_seconds, self.distil_clock, self.distil_plateau)

    @property
    def size(self) -> Size:
        return self.images_per_class if self.byte_budget is None else ByteBudget(self.byte_budget, self.bits)

    @property
    def key(self) -> str:
        return settings_key(Kind.DISTIL, self.as_record())

    def as_record(self) -> dict[str, Any]:
        """JSON values that name the experiment: everything but places on this computer."""
        record = without_places(asdict(self))
        if self.distil_plateau is None:  # so that results of before there was such a thing keep their keys
            del record["distil_plateau"]
        return record

    @property
    def size_text(self) -> str:
        return f"{self.images_per_class} a class" if self.byte_budget is None else f"{self.byte_budget:,} bytes"

    def __str__(self) -> str:
        return f"{self.method} · {self.data} · {self.size_text} · seed {self.seed}"


def run_distil(
    settings: DistilSettings,
    watcher: Watcher | None = None,
    out_dir: str | os.PathLike[str] = "runs",
    *,
    checkpoints: bool = True,
) -> Record:
    """Distil, save the set and its picture below ``out_dir``, judge the saved set and return the result line.

    An interrupted run leaves a checkpoint below ``out_dir``; the same settings then go on from there. Without
    ``checkpoints`` it starts anew: CPU-seconds and peak memory are those of one sitting.

    Raises:
        SettingsError, DataError: settings that do not fit each other or the data.
        StorageError: the set could not be written.
        KeyboardInterrupt: the user interrupted the distillation.
    """
    started, watcher, folder = time.monotonic(), watcher or Silent(), Path(out_dir)
    splits = load_splits(settings.data, root=settings.data_root, train_limit=settings.train_limit, watcher=watcher)
    notes = tell_notes(splits.notes, watcher)
    checkpoint = folder / "checkpoints" / f"{settings.key}.pt" if checkpoints else None
    with watcher.stage(str(settings)):
        meter = Meter(settings.device)
        synthetic = _distil(settings, splits, watcher, checkpoint)
        distillation = meter.cost()
    notes |= _tell_short(synthetic, watcher)
    files = _save(settings, synthetic, folder)
    with watcher.stage(f"judging {settings}") as stage:
        meter = Meter(settings.device)
        judgement = _judge(settings, load(folder / files["set"]), splits, stage)
        evaluation = meter.cost()
    watcher.note(f"{settings}: {judgement}")
    metrics = {
        **judgement.as_record(),
        **_costs(settings, synthetic),
        **distillation.as_record("distil"),
        **evaluation.as_record("evaluation"),
        "files": files,
        "class_names": list(synthetic.class_names),
        **notes,
    }
    return make_record(Kind.DISTIL, settings.as_record(), metrics, time.monotonic() - started)


def _tell_short(synthetic: SyntheticSet, watcher: Watcher) -> dict[str, Any]:
    """Say of which classes there are fewer samples than asked for."""
    short = synthetic.provenance.get("fewer_than_asked")
    if not short:
        return {}
    listed = ", ".join(f"{name}: {got} of {want}" for name, (got, want) in short.items())
    watcher.note(f"fewer samples than asked for, as there are no more real ones: {listed}")
    return {"fewer_than_asked": short}


def _distil(settings: DistilSettings, splits: Splits, watcher: Watcher, checkpoint: Path | None) -> SyntheticSet:
    distilled = build_method(settings.method, **settings.method_settings).distil(
        splits.train,
        settings.size,
        seed=settings.seed,
        budget=settings.budget,
        device=settings.device,
        callbacks=[ShownDistillation(watcher, "distilling")],
        checkpoint=checkpoint,
    )
    return finished(distilled)


def _save(settings: DistilSettings, synthetic: SyntheticSet, folder: Path) -> dict[str, str]:
    """Write the set and, of images, a picture; return paths relative to ``folder``."""
    name = f"{settings.method}-{settings.key}"
    files = {"set": f"sets/{name}.safetensors"}
    if hasattr(
        synthetic.parameterization, "settled"
    ):  # whole numbers: a file of 32 bits holds what a payload decodes to
        sent = decode(encode(synthetic, settings.bits))
        save(sent, folder / files["set"], 32)
    else:
        save(synthetic, folder / files["set"], settings.bits)
    if len(synthetic.sample_shape) == 3 and synthetic.sample_shape[0] in (1, 3):
        files["picture"] = f"sets/{name}.png"
        side_by_side = min(_PICTURE_COLUMNS, int(synthetic.class_counts.max()))
        scale = max(1, min(_MAX_IMAGE_PIXELS, _PICTURE_PIXELS // side_by_side) // synthetic.sample_shape[1])
        save_png(load(folder / files["set"]), folder / files["picture"], columns=_PICTURE_COLUMNS, scale=scale)
    return files


def _judge(settings: DistilSettings, synthetic: SyntheticSet, splits: Splits, stage: Stage) -> Evaluation:
    networks = settings.networks or find_protocol(settings.protocol).networks
    return judge(
        settings,
        synthetic,
        splits.test,
        lambda done, accuracy: stage.update(done / networks, f"accuracy {100 * accuracy:.1f} %"),
    )


def _costs(settings: DistilSettings, synthetic: SyntheticSet) -> dict[str, Any]:
    """What the set takes and took; payloads are counted without provenance, as on the wire."""
    payloads = {str(bits): encoded_bytes(synthetic, bits, provenance=False) for bits in sorted(BITS, reverse=True)}
    return {
        "payload_bytes": payloads[str(settings.bits)],
        "payload_bytes_at_bits": payloads,
        "samples": len(synthetic),
        "samples_by_class": synthetic.class_counts.tolist(),
        "distil_seconds": synthetic.provenance.get("seconds"),
        "steps": synthetic.provenance.get("steps", 0),
        "privacy": synthetic.provenance.get("privacy"),
        "holds_real_samples": bool(synthetic.provenance.get("holds_real_samples", False)),
    }


class Judging(Protocol):
    """Settings of a judgement; the number of networks and their architecture are the protocol's where None."""

    @property
    def protocol(self) -> str: ...
    @property
    def networks(self) -> int | None: ...
    @property
    def architecture(self) -> str | None: ...
    @property
    def device(self) -> str: ...
    @property
    def seed(self) -> int: ...


def judge(
    settings: Judging,
    synthetic: SyntheticSet,
    test: LabelledData,
    on_network: Callable[[int, float], None] | None = None,
) -> Evaluation:
    """:func:`~fedcl_distill.evaluation.evaluate` with ``settings``."""
    return evaluate(
        synthetic,
        test,
        find_protocol(settings.protocol),
        seed=settings.seed,
        architecture=None if settings.architecture is None else Architecture.parse(settings.architecture),
        networks=settings.networks,
        device=settings.device,
        on_network=on_network,
    )


DEFAULT_SECONDS = 600.0
BASELINE = "random"


def with_budget(cells: Iterable[DistilSettings], seconds: float | None = None) -> list[DistilSettings]:
    """``cells`` without doubles, each with a budget, so that all cost the same.

    ``seconds`` go to every cell; without them, :data:`DEFAULT_SECONDS` to those that have neither steps nor seconds.
    """
    budgeted = (_with_seconds(cell, seconds) for cell in cells)
    sized = (cell if cell.byte_budget is None else replace(cell, images_per_class=1) for cell in budgeted)
    return list({cell.key: cell for cell in sized}.values())


def run_table(
    cells: Sequence[DistilSettings],
    results_path: str | os.PathLike[str],
    workers: PoolSettings,
    watcher: Watcher | None = None,
    *,
    retry_failed: bool = False,
) -> list[Record]:
    """Run those of ``cells`` that ``results_path`` does not hold yet, each in a fresh process; return the new records.

    Each result is appended as soon as it is there. A run that fails becomes a record of kind
    ``distil-failed``, whose metrics are ``error``, ``reason`` and ``during``, and stops nothing; it is tried again
    only with ``retry_failed``.
    """
    watcher, new = watcher or Silent(), []
    todo = _missing(cells, results_path, retry_failed)
    with (
        watcher.stage(f"{len(todo)} of {len(cells)} cells to do") as stage,
        closing(run_in_processes([Run(Kind.DISTIL, cell) for cell in todo], workers, stage)) as outcomes,
    ):
        for record in map(_record, outcomes):
            append_record(results_path, record)
            new.append(record)
            watcher.note(_in_one_line(record))
    return new


def baselines(cells: Sequence[DistilSettings], results_path: str | os.PathLike[str]) -> list[DistilSettings]:
    """Random selections in as many true bytes as the finished ``cells`` take, without doubles."""
    payloads = {one["key"]: number(one["metrics"].get("payload_bytes")) for one in read_records(results_path)}
    sized = [(cell, payloads.get(cell.key)) for cell in cells if cell.method != BASELINE]
    found = [_baseline(cell, int(payload)) for cell, payload in sized if payload is not None]
    return list({one.key: one for one in found}.values())


def records_of_cells(cells: Sequence[DistilSettings], results_path: str | os.PathLike[str]) -> list[Record]:
    """For each cell its result or, where there is none, why: the latest record of either kind."""
    found = {record["key"]: record for record in read_records(results_path)}
    either = (found.get(cell.key) or found.get(_failed_key(cell)) for cell in cells)
    return [record for record in either if record is not None]


def _record(outcome: Outcome) -> Record:
    if outcome.record is not None:
        return outcome.record
    return make_record(Kind.DISTIL_FAILED, outcome.run.settings.as_record(), outcome.failure, outcome.seconds)


def _with_seconds(cell: DistilSettings, seconds: float | None) -> DistilSettings:
    if seconds is not None:
        return replace(cell, distil_seconds=seconds)
    return cell if cell.budget is not None else replace(cell, distil_seconds=DEFAULT_SECONDS)


def _missing(
    cells: Sequence[DistilSettings], results_path: str | os.PathLike[str], retry_failed: bool
) -> list[DistilSettings]:
    known = {record["key"] for record in read_records(results_path)}
    return [cell for cell in cells if cell.key not in known and (retry_failed or _failed_key(cell) not in known)]


def _failed_key(cell: DistilSettings) -> str:
    return settings_key(Kind.DISTIL_FAILED, cell.as_record())


def _baseline(cell: DistilSettings, payload: int) -> DistilSettings:
    return replace(cell, method=BASELINE, method_settings={}, images_per_class=1, byte_budget=payload)


def _in_one_line(record: Record) -> str:
    cell, metrics = DistilSettings(**record["settings"]), record["metrics"]
    if record["kind"] == Kind.DISTIL_FAILED:
        return f"{cell}: failed, {metrics['error']}: {metrics['reason']}"
    return f"{cell}: {100 * metrics['accuracy']:.1f} % · {metrics['distil_cpu_seconds']:.0f} CPU-s"
