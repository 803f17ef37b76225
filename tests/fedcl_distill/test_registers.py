"""Truth: what is registered is what its plain form says; what is not known or not taken is told with what is."""

from __future__ import annotations

from typing import Any

import pytest

from fedcl_distill.errors import SettingsError
from fedcl_distill.labels import LABELS
from fedcl_distill.methods import METHODS, all_methods, build_method, dm, psg
from fedcl_distill.objectives import DISTANCES, OBJECTIVES, DistributionMatching
from fedcl_distill.objectives.kernel_ridge import KERNELS, REGRESSION_LOSSES
from fedcl_distill.objectives.trajectories import COORDINATES, TRAJECTORY_GRADIENTS
from fedcl_distill.objectives.unrolled import INNER_BATCHES, INNER_RATES, TRUNCATIONS
from fedcl_distill.parameterizations import PARAMETERIZATIONS
from fedcl_distill.registry import Registry, describe
from fedcl_distill.selection import EMBEDDINGS, SELECTIONS

PARTS: tuple[Registry[Any], ...] = (
    OBJECTIVES,
    DISTANCES,
    KERNELS,
    REGRESSION_LOSSES,
    COORDINATES,
    TRAJECTORY_GRADIENTS,
    INNER_BATCHES,
    INNER_RATES,
    TRUNCATIONS,
    PARAMETERIZATIONS,
    LABELS,
    SELECTIONS,
    EMBEDDINGS,
)
REQUIRED: dict[str, Any] = {"inner": DistributionMatching(), "window": 1}


def test_every_part_is_what_its_plain_form_says() -> None:
    for registry in PARTS:
        for name in registry.names():
            given = {key: value for key, value in REQUIRED.items() if key in registry.settings_of(name)}
            part = registry.build({"name": name, **given})
            assert registry.build(describe(part)) == part


def test_presets_called_directly_say_the_same() -> None:
    for wrong in ({"augmentation": 3}, {"real_batch_per_class": 0}, {"learning_rate": -1}, {"architecture": 5}):
        (setting,) = wrong
        with pytest.raises(SettingsError, match=rf"^dm: {setting} must be"):
            dm(**wrong)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"^psg: clip must be"):
        psg(clip=0.0)


def test_wrong_names_suggest_the_nearest() -> None:
    with pytest.raises(SettingsError, match="unknown method 'dmm'; did you mean 'dm'"):
        build_method("dmm")
    with pytest.raises(SettingsError, match="'lerning_rate'; did you mean 'learning_rate'"):
        build_method("dm", lerning_rate=1.0)
    with pytest.raises(SettingsError, match="unknown parameterization 'tile'; did you mean 'tiles'"):
        dm(parameterization="tile")


def test_labels_are_offered_where_they_are_taken() -> None:
    for method in all_methods():
        if "labels" not in method.settings:
            assert method.labels == []
            continue
        for labels in LABELS.names():
            if labels in method.labels:
                assert METHODS.build({"name": method.name, "labels": labels}).labels.name == labels
            else:
                with pytest.raises(SettingsError, match=r"hard, teacher$"):
                    METHODS.build({"name": method.name, "labels": labels})
