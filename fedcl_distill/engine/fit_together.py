"""Which parts of a method cannot work together, and why."""

from __future__ import annotations

from typing import Any

from fedcl_distill.errors import SettingsError
from fedcl_distill.labels import Labels
from fedcl_distill.network_sources import NetworkSource, NoNetwork
from fedcl_distill.objectives import Objective
from fedcl_distill.parameterizations import Parameterization


def check_parts(
    objective: Objective[Any],
    networks: NetworkSource,
    parameterization: Parameterization,
    labels: Labels,
    steps_per_view: int,
    *,
    clamp: bool,
) -> None:
    """Return if the parts can work together; settings of a part are its own to check.

    Raises:
        SettingsError: they cannot; the message says why.
    """
    what = objective.settings()["objective"]
    if steps_per_view < 1:
        raise SettingsError(f"steps_per_view must be at least 1, got {steps_per_view}")
    if objective.needs_goal and not networks.gives_goal:
        raise SettingsError(
            f"{what} compares with what training on the real data leads to, which {_kind(networks)} networks do not "
            "know; use a source that trains on the real data (expert trajectories, a pretrained pool)"
        )
    if objective.needs_network and isinstance(networks, NoNetwork):
        raise SettingsError(f"{what} looks through networks, and there are none; use FreshRandom, for instance")
    if not objective.needs_network and not isinstance(networks, NoNetwork):
        raise SettingsError(f"{what} has a closed form and looks through no network; use NoNetwork")
    if labels.learning_rate is not None and not objective.reads_labels:
        raise SettingsError(
            f"{what} goes by classes alone, so that learned labels would stay as they are; use hard labels, or a "
            "teacher's"
        )
    if clamp and not parameterization.pixel_arrays:
        raise SettingsError(
            f"parameterization {parameterization.name!r} stores no pixels that could be clamped to the value range"
        )


def _kind(networks: NetworkSource) -> str:
    return str(networks.settings()["networks"])
