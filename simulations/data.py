"""Data for simulations: loaded by name, thinned where a small machine asks for it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch

from fedcl_distill.data import LabelledData, Splits, load
from fedcl_distill.data.arrays import overlap_note
from fedcl_distill.data.sources import data_roots
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.features import BACKBONES
from fedcl_distill.registry import build_with, parse, read_value, to_text
from fedcl_distill.seeding import generator_for
from fedcl_distill.settings import Known, settings
from simulations.running.progress import Silent, Watcher


@settings
class DataOptions:
    """How a file or folder of one's own is read. They stand behind its name, ``photos:image_size=64``, or are flags.

    Attributes:
        image_size: pixels of every picture of a folder, as the side of a square or as HEIGHTxWIDTH.
        image_fit: how a picture of other proportions comes to that size: its middle is cut out, or it is stretched.
        bad_pictures: whether pictures that cannot be read end the run, or are left out and counted.
        label_column: of a table (.csv, .tsv, .parquet): by name or position, from 0 on.
        feature_columns: of a table, with commas between; all others by default.
        group_column: of a table: whose rows belong together, such as those of a hospital, for ``partition`` natural.
        allow_hflip: whether a mirrored image keeps its class, so that augmentation may mirror; known data sets say so
            themselves, of others it is not assumed.
        features: a frozen backbone, such as ``efficientnet-lite0:size=64`` or ``random:count=500``, whose features
            stand for the samples; computed once, and kept in the folder ``features`` beside the data.

    Raises:
        SettingsError: on construction, if a value is not allowed.
    """

    image_size: int | str | None = None
    image_fit: Literal["crop", "stretch"] | None = None
    bad_pictures: Literal["raise", "skip"] | None = None
    label_column: str | int | None = None
    feature_columns: tuple[str | int, ...] | None = None
    group_column: str | int | None = None
    allow_hflip: bool | None = None
    features: Annotated[str, Known("backbone", BACKBONES.names)] | None = None

    def __post_init__(self) -> None:
        _ = self.size

    @property
    def size(self) -> int | tuple[int, int] | None:
        """What :func:`~fedcl_distill.data.load` calls ``size``."""
        if self.image_size is None:
            return None
        found = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", str(self.image_size))
        if found is None:
            raise SettingsError(f"image_size must be a number of pixels or HEIGHTxWIDTH, got {self.image_size!r}")
        return (int(found[1]), int(found[2])) if found[2] else int(found[1])

    def load(self, name: str, root: str | None) -> Splits:
        """:func:`~fedcl_distill.data.load` by these options."""
        return load(
            name,
            root=root,
            size=self.size,
            fit=self.image_fit,
            on_error=self.bad_pictures,
            label_column=self.label_column,
            feature_columns=self.feature_columns,
            group_column=self.group_column,
            allow_hflip=self.allow_hflip,
        )


def read_data(text: str) -> tuple[str, DataOptions]:
    """The name or path that ``text`` begins with, and the options behind it.

    Raises:
        SettingsError: an option is unknown or its value is not allowed.

    Example:
        >>> read_data("photos:image_size=64")[1].size
        64
    """
    found = re.fullmatch(r"(.+?):(\w+=.*)", text, re.DOTALL)
    if found is None or Path(text).exists():
        return text, DataOptions()
    given = parse(f"data:{found[2]}")
    del given["name"]
    columns = given.get("feature_columns")
    if columns is not None:
        given["feature_columns"] = tuple(columns) if isinstance(columns, list) else (columns,)
    if isinstance(given.get("features"), Mapping):
        given["features"] = to_text(given["features"])
    return found[1], build_with("data", DataOptions, given)


def with_options(text: str, given: Mapping[str, Any]) -> str:
    """``text`` with the options ``given`` behind it, in place of what it says of them itself.

    Raises:
        SettingsError: an option is unknown or its value is not allowed.
    """
    name, before = read_data(text)
    chosen = {key: value for key, value in asdict(replace(before, **given)).items() if value is not None}
    parts = {"features": lambda part: f"[{part}]" if re.search("[:,=]", part) else part}
    items = ",".join(f"{key}={parts.get(key, _text_of)(value)}" for key, value in chosen.items())
    return f"{name}:{items}" if items else name


def _text_of(value: Any) -> str:
    """``value`` as a plain word where it is read as itself, else as JSON without the signs that separate options."""
    if isinstance(value, tuple):
        return f"[{','.join(map(_text_of, value))},]"
    if isinstance(value, str) and re.fullmatch(r"\w[\w .-]*", value) and read_value(value) == value.strip() == value:
        return value
    return re.sub(r"[][,:=]", lambda sign: f"\\u{ord(sign[0]):04x}", json.dumps(value))


def load_splits(
    name: str, *, root: str | None = None, train_limit: int | None = None, seed: int = 0, watcher: Watcher | None = None
) -> Splits:
    """Load ``name`` and keep at most ``train_limit`` training samples, drawn at random; the test data stay whole.

    Options may stand behind the name, see :class:`DataOptions`; ``watcher`` sees a backbone at work.
    """
    place, options = read_data(name)
    splits = options.load(place, root)
    if train_limit is not None and train_limit < len(splits.train):
        splits = Splits(_thin(splits.train, train_limit, seed), splits.test)
    if options.features is None:
        return splits
    return _seen_by(options.features, splits, data_roots(root)[0] / "features", watcher or Silent())


def _seen_by(name: str, splits: Splits, cache: Path, watcher: Watcher) -> Splits:
    """The features of ``splits``: on the scale of the training data where the backbone has none of its own."""
    backbone = BACKBONES.build(name).reading(splits.train.spec)
    parts, done, total = [], 0, len(splits.train) + len(splits.test)
    with watcher.stage(f"features of {splits.train.name} by {backbone.name}") as stage:
        for part in (splits.train, splits.test):
            start = done

            def on_batch(number: int, _: int, start: int = start) -> None:
                stage.update((start + number) / total, f"{start + number:,} of {total:,} samples")

            parts.append(backbone.features(part, cache=cache, on_batch=on_batch))
            done += len(part)
    note = f"{parts[0].sample_shape[0]:,} features of the backbone {backbone.name}, {backbone.fingerprint}"
    return Splits(*(replace(one, notes=(*one.notes, note)) for one in parts))


_TOLD = set[str]()


def tell_notes(notes: Sequence[str], watcher: Watcher) -> dict[str, list[str]]:
    """Show each of ``notes`` on how data were read, once in this process; return all of them for a result's metrics."""
    for note in notes:
        if note not in _TOLD:
            _TOLD.add(note)
            watcher.note(f"data: {note}")
    return {"data_notes": list(notes)} if notes else {}


def held_out(splits: Splits, share: float, seed: int) -> Splits:
    """``splits`` without their test data: ``share`` of the training data stands in for these.

    That share of every class, rounded, is drawn at random; every class with two samples keeps one for training.

    Args:
        splits: of which the test data are not looked at.
        share: in (0, 1).
        seed: of the draw.

    Raises:
        DataError: no class has enough samples to hold one out.
    """
    train = splits.train
    generator = generator_for(seed, "validation")
    chosen = torch.zeros(len(train), dtype=torch.bool)
    for label in range(train.num_classes):
        members = train.indices_of(label)
        count = min(round(share * len(members)), len(members) - 1)
        chosen[members[torch.randperm(len(members), generator=generator)[: max(count, 0)]]] = True
    if not chosen.any():
        raise DataError(f"{train.name}: too few samples to hold out {100 * share:g} % of every class")
    kept, tested = (train.subset(part.nonzero().flatten()) for part in (~chosen, chosen))
    notes = (*train.notes, *overlap_note(kept.samples, tested.samples))
    return Splits(*(replace(part, notes=notes) for part in (kept, tested)))


def _thin(data: LabelledData, limit: int, seed: int) -> LabelledData:
    order = torch.randperm(len(data), generator=generator_for(seed, "thin"))
    return data.subset(order[:limit].sort().values)
