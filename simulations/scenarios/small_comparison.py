"""Both worlds on 8x8 digits in a minute of processor time: what ``fedcl-distill`` without a subcommand runs."""

from __future__ import annotations

from dataclasses import replace

from simulations.running.runs import Run
from simulations.scenarios.distil import DistilSettings
from simulations.settings import FederatedSettings
from strategies.continual import ContinualSettings

_SMALL_NETWORK = "convnet:width=32"
_QUICK_DM = {"architecture": _SMALL_NETWORK, "steps_per_network": 5}
_DM_STEPS = 100  # as good here as three to five times as many (docs/speed.md)

_DISTIL = DistilSettings(images_per_class=1, distil_steps=_DM_STEPS, architecture=_SMALL_NETWORK)
_FEDERATED = FederatedSettings(clients=4, partition="dirichlet:0.1", architecture=_SMALL_NETWORK)
_ONE_SHOT = replace(_FEDERATED, strategy="one-shot", images_per_class=1)
_CONTINUAL = ContinualSettings(experiences=5, images_per_class=1, architecture=_SMALL_NETWORK, epochs=10)

RUNS = [
    Run("federated", replace(_FEDERATED, strategy="fedavg", rounds=20, local_epochs=5)),
    Run(
        "continual",
        replace(_CONTINUAL, strategy="distilled", method="dm", method_settings=_QUICK_DM, distil_steps=_DM_STEPS),
    ),
    Run("distil", replace(_DISTIL, method="dm", method_settings=_QUICK_DM)),
    Run("federated", replace(_ONE_SHOT, method="dm", method_settings=_QUICK_DM, distil_steps=_DM_STEPS)),
    Run("continual", replace(_CONTINUAL, strategy="naive")),
    Run("continual", replace(_CONTINUAL, strategy="reservoir")),
    Run("distil", replace(_DISTIL, method="herding")),
    Run("distil", replace(_DISTIL, method="random")),
    Run("federated", replace(_ONE_SHOT, method="random")),
]
"""The longest first, so that processes end at about the same time."""
