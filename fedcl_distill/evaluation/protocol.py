"""How synthetic sets are judged: what is trained, how long, how often; each preset has a name that results carry."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fedcl_distill.augmentation import NoAugmentation, augmentation_for
from fedcl_distill.data.labelled import LabelledData
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
    """

    name: str
    recipe: Recipe
    networks: int
    width: int
    augment: bool = True

    def recipe_for(self, data: LabelledData) -> Recipe:
        """The recipe with the augmentation that suits ``data``."""
        return replace(self.recipe, augmentation=augmentation_for(data) if self.augment else NoAugmentation())

    def architecture_for(self, data: LabelledData) -> Architecture:
        """The network to train where the caller names none."""
        return default_architecture(data.sample_shape, self.width)


FIELD = Protocol("field", Recipe(epochs=1000, schedule="halfway"), networks=5, width=128)
"""The field's own (Zhao et al. 2021 and code of their successors): 1000 epochs with DSA, SGD 0.01, ×0.1 half way."""

FAST = Protocol("fast", Recipe(epochs=300, learning_rate=0.02, schedule="cosine"), networks=3, width=64)
"""For small machines: a narrower network, a third of the epochs, a cosine schedule."""

PROTOCOLS = {protocol.name: protocol for protocol in (FIELD, FAST)}
