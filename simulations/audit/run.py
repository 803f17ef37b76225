"""Audits as runs: membership and copies of releases, saved sets, and samples rebuilt from gradients."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
from torch import Tensor

from fedcl_distill.audit import GradientInversion, batch_gradients, matched
from fedcl_distill.checkpoint import load_checkpoint, save_checkpoint
from fedcl_distill.data import DataSpec, LabelledData
from fedcl_distill.errors import DataError
from fedcl_distill.files import remove
from fedcl_distill.networks import Architecture
from fedcl_distill.parameterizations import Pixels
from fedcl_distill.privacy import guarantee_of
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.settings import Count, Range, settings
from fedcl_distill.synthetic import SyntheticSet, save, save_png
from fedcl_distill.training import accuracy
from simulations.audit.game import (
    PIXELS,
    Attacker,
    AuditSettings,
    Game,
    Release,
    bounds_of_epsilon,
    count_copies,
    game_of_record,
    judge_attack,
    maker_for,
    toss_coins,
)
from simulations.data import load_splits
from simulations.running.progress import Silent, Watcher
from simulations.running.runs import Kind, Record, checkpoint_of, make_record, settings_key
from simulations.scenarios.saved_sets import SavedSet
from simulations.settings import without_places

Observations = list[dict[str, Tensor]]


def run_audit(
    settings: AuditSettings,
    watcher: Watcher | None = None,
    out_dir: str | os.PathLike[str] = "runs",
    *,
    checkpoints: bool = True,
) -> Record:
    """Make and attack what ``settings`` describe, and return the result line.

    An interrupted audit leaves what it observed below ``out_dir``; the same settings go on from there.

    Raises:
        SettingsError, DataError: settings that do not fit each other or the data.
        CheckpointError: what an interrupted audit left is damaged.
        StorageError: a file could not be written.
    """
    started, watcher, folder = time.monotonic(), watcher or Silent(), Path(out_dir)
    maker = maker_for(settings)
    game = toss_coins(settings.data, settings.data_root, settings.candidates, settings.releases, settings.seed)
    key, attacker = settings_key(Kind.AUDIT, settings.as_record()), Attacker(settings, game)
    kept = _Kept(checkpoint_of(Kind.AUDIT, key, folder) if checkpoints else None, key)
    with watcher.stage(str(settings)) as stage:
        for index in range(len(kept.observed), settings.releases):
            seed = derive_seed(settings.seed, "release", index)
            release = maker(game.data_of(index), game.test, seed)
            model = attacker.model_of(release, derive_seed(settings.seed, "attacker", index))
            facts = _facts(release, game, folder, f"{settings.strategy}-{key}") if index == 0 else None
            if facts is not None:
                facts["accuracy"] = accuracy(model, game.test)
            kept.add(attacker.observe(release, model), facts)
            stage.update((index + 1) / settings.releases, f"release {index + 1} of {settings.releases}")
    metrics = {**kept.facts, **_verdict(kept.observed, attacker, kept.facts)}
    kept.forget()
    watcher.note(f"{settings}: {_summary(metrics)}")
    return make_record(Kind.AUDIT, settings.as_record(), metrics, time.monotonic() - started)


def audit_saved(
    saved: SavedSet,
    settings: AuditSettings,
    members: Tensor | None = None,
    *,
    train_limit: int | None = None,
    watcher: Watcher | None = None,
    out_dir: str | os.PathLike[str] = "runs",
) -> Record:
    """Attack a saved set without shadows; nothing follows for ε, for nobody tossed coins.

    Args:
        saved: the set.
        settings: data, attacker and seed count; how releases are made does not.
        members: int64 (k,) positions of the set's real samples among the training data; None if it was made from all.
        train_limit: of those training data, as ``distil`` had it.
        watcher: hears of progress.
        out_dir: where the picture goes.

    Raises:
        DataError: the set, the data and the members do not fit together.
    """
    started, watcher = time.monotonic(), watcher or Silent()
    record, name = saved_record(saved, settings, members, train_limit), f"audit of {saved.path.name}"
    game = game_of_record(
        load_splits(settings.data, root=settings.data_root, train_limit=train_limit), members, settings.seed
    )
    if saved.synthetic.class_names != game.test.class_names or saved.synthetic.sample_shape != game.test.sample_shape:
        raise DataError(f"{saved.path} was not made from {settings.data}: classes or sample shapes differ")
    attacker = Attacker(settings, game)
    with watcher.stage(name):
        model = attacker.model_of(saved.synthetic, derive_seed(settings.seed, "attacker", 0))
        facts = _facts(
            saved.synthetic, game, Path(out_dir), f"saved-{settings_key(Kind.AUDIT, record)}", keep_set=False
        )
        facts["accuracy"] = accuracy(model, game.test)
        metrics = {**facts, **_verdict([attacker.observe(saved.synthetic, model)], attacker, facts)}
    watcher.note(f"{name}: {_summary(metrics)}")
    return make_record(Kind.AUDIT, record, metrics, time.monotonic() - started)


def saved_record(
    saved: SavedSet, settings: AuditSettings, members: Tensor | None, train_limit: int | None
) -> dict[str, Any]:
    """JSON values that name the audit of a saved set."""
    named = replace(settings, strategy="saved", strategy_settings={}, federated={}, releases=1).as_record()
    record = None if members is None else settings_key("members", {"positions": members.tolist()})
    return {
        **named,
        "method": saved.method,
        "method_settings": {},
        "distil_steps": None,
        "images_per_class": None,
        "candidates": train_limit,
        "set": saved.digest,
        "members": record,
    }


class _Kept:
    """Observations of the releases so far, on disk where a path is given."""

    def __init__(self, path: Path | None, key: str) -> None:
        self.path, self._key = path, key
        saved = (load_checkpoint(path, key) if path is not None else None) or {}
        self.observed: Observations = saved.get("observed", [])
        self.facts: dict[str, Any] = saved.get("facts", {})

    def add(self, observed: dict[str, Tensor], facts: dict[str, Any] | None) -> None:
        self.observed.append(observed)
        self.facts = self.facts if facts is None else facts
        if self.path is not None:
            save_checkpoint(self.path, self._key, {"observed": self.observed, "facts": self.facts})

    def forget(self) -> None:
        if self.path is not None:
            remove(self.path)


def _facts(release: Release, game: Game, folder: Path, name: str, *, keep_set: bool = True) -> dict[str, Any]:
    """What there is to say of the first release beside attacks; JSON values."""
    if not isinstance(release, SyntheticSet):
        return {"files": {}}
    files = {"picture": f"audits/{name}.png"}
    facts = count_copies(release, game, folder / files["picture"])
    if not (folder / files["picture"]).exists():
        del files["picture"]
    if keep_set:
        files["set"] = f"audits/{name}.safetensors"
        save(release, folder / files["set"])
    return {
        **facts,
        "files": files,
        "synthetic_samples": len(release),
        "holds_real_samples": bool(release.provenance.get("holds_real_samples", False)),
        "claimed": _claim(release),
    }


def _claim(release: SyntheticSet) -> dict[str, Any] | None:
    """ε and δ that the set says were spent on it; None where it claims nothing, or its noise had a known seed."""
    claimed = guarantee_of(release.provenance)
    return None if claimed is None else {"epsilon": claimed.epsilon, "delta": claimed.delta}


def _verdict(observed: Observations, attacker: Attacker, facts: dict[str, Any]) -> dict[str, Any]:
    settings, game = attacker.settings, attacker.game
    together = {kind: torch.stack([one[kind] for one in observed]) for kind in observed[0]}
    by_release = [attacker.scores(together, index) for index in range(len(observed))]
    scores = {name: torch.stack([one[name] for one in by_release]) for name in by_release[0]}
    delta = (facts.get("claimed") or {}).get("delta", settings.delta)
    first = {name: one[0] for name, one in scores.items()}
    bounds, pure = (bounds_of_epsilon(first, game, delta=one, confidence=settings.confidence) for one in (delta, 0.0))
    return {
        "attacks": {name: judge_attack(one, game.members, settings.confidence) for name, one in scores.items()},
        "epsilon_bounds": bounds,
        "epsilon_bound": None if bounds is None else max(bounds.values()),
        "pure_epsilon_bound": None if pure is None else max(pure.values()),
        "delta": delta,
        "members": int(game.members[0].sum()),
        "others": int((~game.members[0]).sum()),
        **(_resemblance(together[PIXELS][0], game) if PIXELS in together and game.candidates.is_image else {}),
    }


def _resemblance(nearness: Tensor, game: Game) -> dict[str, Any]:
    """Median PSNR in dB between a member, or another candidate, and the released sample nearest to it."""
    values = game.candidates.samples[0].numel()
    low, high = game.candidates.value_range
    decibels = 20 * (nearness / torch.log(torch.tensor(10.0)) + torch.log10(torch.tensor(values**0.5 * (high - low))))
    inside = game.members[0]
    return {"psnr_of_members": float(decibels[inside].median()), "psnr_of_others": float(decibels[~inside].median())}


def _summary(metrics: dict[str, Any]) -> str:
    name, best = max(metrics["attacks"].items(), key=lambda one: one[1]["auc"]["value"])
    return f"accuracy {100 * metrics['accuracy']:.1f} %, largest AUC {best['auc']['value']:.3f} by {name}"


_MAX_BATCH = 6


@settings
class GradientSettings:
    """A model, and batches whose gradients on it are inverted.

    Attributes:
        data: name of the data set.
        data_root: folder to search first; a place on this computer, and no part of a result's settings.
        architecture: of the model, which is fresh, as in the first round; by default an MLP of width 128, the kind
            that FedAvg's authors begin with, too (McMahan et al. 2017).
        batch: samples of a gradient, up to 6.
        batches: how many are drawn from the training data.
        steps: of the attack on each.
        seed: fixes model, batches and attack.

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    data: str = "digits"
    data_root: str | None = None
    architecture: str | None = None
    batch: Annotated[int, Range(ge=1, le=_MAX_BATCH)] = 1
    batches: Count = 2
    steps: Count = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        _ = self.model

    @property
    def model(self) -> Architecture:
        return Architecture.parse(self.architecture or "mlp:width=128")

    def as_record(self) -> dict[str, Any]:
        """JSON values that name the experiment: everything but places on this computer."""
        return without_places(asdict(self))


def run_gradients(settings: GradientSettings, watcher: Watcher | None = None, folder: Path | None = None) -> Record:
    """Invert the gradients of ``settings.batches`` batches; with ``folder``, a picture shows originals and guesses.

    Raises:
        SettingsError, DataError: settings that do not fit the data.
    """
    started, watcher = time.monotonic(), watcher or Silent()
    data = load_splits(settings.data, root=settings.data_root).train
    network = settings.model.build(data.sample_shape, data.num_classes, seed=settings.seed)
    order = torch.randperm(len(data), generator=generator_for(settings.seed, "victims"))
    attack, bounds = GradientInversion(steps=settings.steps), _bounds(data)
    originals, guesses = [], []
    with watcher.stage(f"gradients of {settings.batches} × {settings.batch} · {settings.data}") as stage:
        for index, rows in enumerate(torch.split(order[: settings.batch * settings.batches], settings.batch)):
            inputs, labels, seed = data.inputs(rows), data.labels[rows], derive_seed(settings.seed, "guess", index)
            seen = batch_gradients(network, inputs, labels)
            guesses.append(attack.invert(network, seen, labels, data.sample_shape, seed=seed, bounds=bounds))
            originals.append(inputs)
            stage.update((index + 1) / settings.batches)
    unit = data.normalisation.invert
    decibels = torch.cat([matched(unit(one), unit(other)) for one, other in zip(originals, guesses, strict=True)])
    metrics: dict[str, Any] = {"psnr": decibels.tolist(), "files": {}}
    if folder is not None and data.is_image and data.sample_shape[0] in (1, 3):
        metrics["files"]["picture"] = f"audits/gradients-{settings_key(Kind.GRADIENTS, settings.as_record())}.png"
        _save_pairs(torch.cat(originals), torch.cat(guesses), data, folder / metrics["files"]["picture"])
    watcher.note(f"gradients of {settings.batch}: median PSNR {median(decibels.tolist()):.1f} dB")
    return make_record(Kind.GRADIENTS, settings.as_record(), metrics, time.monotonic() - started)


def _bounds(data: LabelledData) -> tuple[Tensor, Tensor]:
    """Smallest and largest network inputs, each with a leading dimension of one."""
    low, high = (torch.full((1, *data.sample_shape), end) for end in data.value_range)
    return data.normalisation.apply(low), data.normalisation.apply(high)


def _save_pairs(originals: Tensor, guesses: Tensor, data: LabelledData, path: Path) -> None:
    """Originals above guesses, in the order of the batches' draws: a gradient does not tell the order of a batch."""
    rows = torch.arange(2).repeat_interleave(len(originals))
    arrays = {"pixels": torch.cat([originals, guesses])}
    spec = DataSpec(data.sample_shape, ("original", "guess"), data.normalisation)
    save_png(SyntheticSet(arrays, Pixels(), rows, spec), path, scale=3)
