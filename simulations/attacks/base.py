"""What every attack may do: change a node's data before its honest work, and its answer afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import RecordDict

from fedcl_distill.data import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.settings import Count, settings
from simulations.attacks.inflation import inflated


@dataclass(frozen=True)
class Goal:
    """What a targeted attack wants of the global model.

    Attributes:
        data: test samples, changed as the attacker would change them; none of the target's class.
        target: what they shall be called.
    """

    data: LabelledData
    target: int


@settings(kw_only=True)
class Attack:
    """An attack by messages that every check of form lets pass.

    Attributes:
        inflation: at least 1: a client says that it has so many times the samples it has.

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    inflation: Count = 1

    needs_model = False
    """Whether it changes a model, so that only strategies whose nodes get and send one can be attacked."""

    def poison(self, data: LabelledData, seed: int) -> LabelledData:
        """What the client works on instead of its own ``data``."""
        return data

    def send(self, question: RecordDict, answer: RecordDict) -> RecordDict:
        """What it sends instead of its ``answer`` to ``question``."""
        return inflated(question, answer, self.inflation)

    def goal(self, test: LabelledData) -> Goal | None:
        """On which samples success is measured; None for an attack without a target."""
        return None


def require(condition: bool, otherwise: str) -> None:
    """SettingsError unless ``condition``."""
    if not condition:
        raise SettingsError(f"attack: {otherwise}")


def require_class(label: int, data: LabelledData) -> None:
    """SettingsError unless ``label`` is a class of ``data``."""
    require(0 <= label < data.num_classes, f"there is no class {label} among {data.num_classes}")
