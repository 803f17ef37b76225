"""Accuracies that the papers state, for a look beside our own.

They were reached with hours on GPUs: ConvNet-3 of width 128, 1000 epochs (300 without augmentation), mean over five
sets and twenty networks each, as a rule. Numbers are per cent of test accuracy by a ConvNet-3.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A number from a paper.

    Attributes:
        accuracy: on the whole real test set, in [0, 1].
        recalled: written down from memory; look it up in the paper before citing it.
        note: in what it differs from the usual setting; empty where it does not.
    """

    accuracy: float
    recalled: bool
    note: str = ""


_SIZES = (1, 10, 50)
_TILES = "four images decoded from each stored one"
_SOFT = "soft labels"
_WIDE = "kernel ridge regression or a network of width 1024"

Row = tuple[tuple[float | None, float | None, float | None], bool]
"""Per cent at 1, 10 and 50 images per class, and whether they are recalled."""

_ROWS: dict[str, dict[str, Row]] = {
    "random": {
        "mnist": ((64.9, 95.1, 97.9), True),
        "fashion-mnist": ((51.4, 73.8, 82.5), True),
        "cifar10": ((14.4, 26.0, 43.4), False),
    },
    "herding": {
        "mnist": ((89.2, 93.7, 94.8), True),
        "fashion-mnist": ((67.0, 71.1, 71.9), True),
        "cifar10": ((21.5, 31.6, 40.4), False),
    },
    "dc": {
        "mnist": ((91.7, 97.4, 98.8), False),
        "fashion-mnist": ((70.5, 82.3, 83.6), False),
        "cifar10": ((28.3, 44.9, 53.9), False),
    },
    "dsa": {
        "mnist": ((88.7, 97.8, 99.2), False),
        "fashion-mnist": ((70.6, 84.6, 88.7), False),
        "cifar10": ((28.8, 52.1, 60.6), False),
    },
    "dcc": {"cifar10": ((32.9, 49.4, 61.6), False)},
    "dm": {"mnist": ((89.7, 97.5, 98.6), True), "cifar10": ((26.0, 48.9, 63.0), False)},
    "cafe": {
        "mnist": ((93.1, 97.2, 98.6), True),
        "fashion-mnist": ((77.1, 83.0, 84.8), True),
        "cifar10": ((30.3, 46.3, 55.5), False),
    },
    "idc": {
        "mnist": ((94.2, 98.4, 99.1), False),
        "fashion-mnist": ((81.0, 86.0, 86.2), False),
        "cifar10": ((50.6, 67.5, 74.5), False),
    },
    "kip": {
        "mnist": ((90.1, 97.5, 98.3), True),
        "fashion-mnist": ((73.5, 86.8, 88.0), True),
        "cifar10": ((49.9, 62.7, 68.6), False),
    },
    "frepo": {
        "mnist": ((93.0, 98.6, 99.2), True),
        "fashion-mnist": ((75.6, 86.2, 89.6), True),
        "cifar10": ((46.8, 65.5, 71.7), False),
    },
    "rfad": {
        "mnist": ((94.4, 98.5, 98.8), True),
        "fashion-mnist": ((78.6, 87.0, 88.8), True),
        "cifar10": ((53.6, 66.3, 71.1), False),
    },
    "mtt": {
        "mnist": ((91.4, 97.3, 98.5), True),
        "fashion-mnist": ((75.1, 87.2, 88.3), True),
        "cifar10": ((46.3, 65.3, 71.6), False),
    },
    "rtp": {
        "mnist": ((98.7, 99.3, 99.4), True),
        "fashion-mnist": ((88.5, 90.0, 91.2), True),
        "cifar10": ((66.4, 71.2, 73.6), False),
    },
    "ncfm": {"cifar10": ((49.5, 71.8, 77.4), False)},
    "datm": {"cifar10": ((46.9, 66.8, 76.1), False)},
}

_NOTES = {
    "idc": _TILES,
    "ncfm": f"{_TILES}, {_SOFT}",
    "datm": _SOFT,
    "kip": _WIDE,
    "rfad": _WIDE,
    "frepo": f"learned labels, {_SOFT}",
    "rtp": "stored as shared bases and addresses",
}

WHOLE_DATA = {
    "mnist": Published(0.996, recalled=True),
    "fashion-mnist": Published(0.935, recalled=True),
    "cifar10": Published(0.848, recalled=False),
}
"""The same network trained on all real data."""


def published(method: str, data: str, images_per_class: int) -> Published | None:
    """What the method's paper, or one that compares with it, states; None where nothing is known."""
    row = _ROWS.get(method, {}).get(data)
    if row is None or images_per_class not in _SIZES:
        return None
    values, recalled = row
    value = values[_SIZES.index(images_per_class)]
    return None if value is None else Published(value / 100, recalled, _NOTES.get(method, ""))
