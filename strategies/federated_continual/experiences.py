"""Data as experiences, alike for every client and the server's tests; nothing here knows of Avalanche."""

from __future__ import annotations

import torch

from fedcl_distill.data import LabelledData
from fedcl_distill.errors import SettingsError
from strategies.continual.streams import DOMAINS, class_groups
from strategies.federated_continual.settings import FederatedContinualSettings


def experiences_of(settings: FederatedContinualSettings, data: LabelledData) -> tuple[LabelledData, ...]:
    """What ``data`` hold of each experience, in the order of experiences; of some that may be nothing.

    Raises:
        SettingsError: there are fewer classes than experiences, or the domain is unknown or does not fit the data.
    """
    if settings.scenario == "domain":
        if settings.domain not in DOMAINS:
            raise SettingsError(f"unknown domain {settings.domain!r}; known: {', '.join(DOMAINS)}")
        turned = DOMAINS[settings.domain]
        return tuple(turned(data, index, settings.experiences) for index in range(settings.experiences))
    groups = class_groups(data.num_classes, settings.experiences, settings.order_seed)
    return tuple(data.subset(torch.isin(data.labels, torch.tensor(group)).nonzero().flatten()) for group in groups)
