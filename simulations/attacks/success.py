"""How far an attack got, and what a defence threw out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedcl_distill.data import LabelledData
from fedcl_distill.networks import Network
from fedcl_distill.training import predict
from simulations.attacks.base import Attack
from strategies.federated import Rejection


def success_rate(attack: Attack, network: Network, test: LabelledData) -> float | None:
    """The share, in [0, 1], of the samples of the attack's goal that ``network`` calls the target; None without one."""
    goal = attack.goal(test)
    if goal is None or len(goal.data) == 0:
        return None
    return float((predict(network, goal.data) == goal.target).double().mean())


def dropped_samples(rejections: Sequence[Rejection], malicious: Sequence[int]) -> dict[str, Any]:
    """Samples that a defence dropped, of attackers and of honest clients, and the honest clients that lost all."""
    dropped = [one for one in rejections if one.samples is not None]
    return {
        "malicious_dropped": sum(one.samples or 0 for one in dropped if one.partition in malicious),
        "honest_dropped": sum(one.samples or 0 for one in dropped if one.partition not in malicious),
        "honest_refused": sum(one.label is None for one in dropped if one.partition not in malicious),
    }
