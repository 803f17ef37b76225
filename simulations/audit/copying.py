"""Near copies in a released set, as counts and as a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fedcl_distill.audit import NearCopies, near_copies, structural_similarity
from fedcl_distill.data import LabelledData
from fedcl_distill.parameterizations import Pixels
from fedcl_distill.synthetic import SyntheticSet, save_png
from simulations.audit.attacker import pixels_of
from simulations.audit.game import Game

_PAIRS, _SCALE = 5, 2


def count_copies(release: SyntheticSet, game: Game, picture: Path | None) -> dict[str, Any]:
    """Near copies of members in the first release, and as a control of candidates that were none.

    Of images, the picture shows pairs for each class, the closest first: a released sample, and the member beside it.
    """
    members, others = game.data_of(0), game.others_of(0)
    found = near_copies(release, members, game.references)
    control = near_copies(release, others, game.references)
    counts: dict[str, Any] = {"near_copies": found.count, "near_copies_of_others": control.count}
    if len(release.sample_shape) == 3 and (found.positions >= 0).all():
        originals = members.unit(found.positions)
        similarity = structural_similarity(pixels_of(release), originals)
        counts["structural_similarity"] = float(similarity.median())
        if picture is not None and release.sample_shape[0] in (1, 3):
            save_png(_pairs(release, members, found), picture, columns=2 * _PAIRS, scale=_SCALE)
    return counts


def _pairs(release: SyntheticSet, members: LabelledData, found: NearCopies) -> SyntheticSet:
    order = found.distances.argsort()
    sides = [release.inputs()[order], members.inputs(found.positions[order])]
    return replace(
        release,
        arrays={"pixels": torch.stack(sides, dim=1).flatten(0, 1)},
        parameterization=Pixels(),
        labels=release.hard_labels[order].repeat_interleave(2),
    )
