"""How synthetic sets are judged: what is trained, how long, how often; each preset has a name that results carry."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fedcl_distill.augmentation import NoAugmentation, augmentation_for
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Architecture, default_architecture
from fedcl_distill.training import Recipe


@dataclass(frozen=True)
class Protocol:
    """A way of judging.

    Attributes:
        name: what results carry.
        recipe: how each network is trained on the synthetic set; its augmentation is set by the data.
        networks: how many networks are trained, each from its own seed.
        width: of the ConvNet (or MLP), where no architecture is given.
        augment: train with the augmentation that suits the data (DSA for images).
        most_samples: a network sees at most so many samples, passes multiplied, so that a large set does not take
            hours: it gets fewer epochs, yet as many steps. None: no bound.
    """

    name: str
    recipe: Recipe
    networks: int
    width: int
    augment: bool = True
    most_samples: int | None = None

    def recipe_for(self, data: LabelledData, samples: int = 1) -> Recipe:
        """The recipe for a set of so many samples, with the augmentation that suits ``data``."""
        epochs = self.recipe.epochs
        if self.most_samples is not None:
            epochs = max(1, min(epochs, self.most_samples // max(samples, 1)))
        augmentation = augmentation_for(data) if self.augment else NoAugmentation()
        return replace(self.recipe, epochs=epochs, augmentation=augmentation)

    def architecture_for(self, data: LabelledData) -> Architecture:
        """The network to train where the caller names none."""
        return default_architecture(data.sample_shape, self.width)


FIELD = Protocol("field", Recipe(epochs=1000, schedule="halfway"), networks=5, width=128)
"""The field's own (Zhao et al. 2021 and code of their successors): 1000 epochs with DSA, SGD 0.01, ×0.1 half way."""

_FAST_RECIPE = Recipe(epochs=300, learning_rate=0.02, schedule="cosine")
FAST = Protocol("fast", _FAST_RECIPE, networks=3, width=64)
"""For small machines: a narrower network, a third of the epochs, a cosine schedule."""

QUICK = Protocol("quick", _FAST_RECIPE, networks=3, width=64, most_samples=60_000)
"""As fast, but sets of more than 200 samples get fewer epochs: for tables of many cells."""

BRIEF = Protocol("brief", _FAST_RECIPE, networks=1, width=32, augment=False, most_samples=15_000)
"""A quarter of the steps, without augmentation: where only large differences matter, as under attack."""

PROTOCOLS = {protocol.name: protocol for protocol in (FIELD, FAST, QUICK, BRIEF)}


def find_protocol(name: str) -> Protocol:
    """The protocol called ``name``.

    Raises:
        SettingsError: there is none.
    """
    if name not in PROTOCOLS:
        raise SettingsError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
