"""How large a network may be that somebody else asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass

import torch

from fedcl_distill.errors import SettingsError
from fedcl_distill.networks.architectures import Architecture


@dataclass(frozen=True)
class NetworkLimits:
    """Bounds on a network, checked before anything of its size is allocated.

    Attributes:
        max_option: of each whole number among its options, such as width and depth.
        max_parameters: weights of the network, classifier included.

    Raises:
        SettingsError: on construction, if a bound is not a positive integer.
    """

    max_option: int = 1024
    max_parameters: int = 2**27

    def __post_init__(self) -> None:
        for bound in fields(self):
            value = getattr(self, bound.name)
            if type(value) is not int or value < 1:
                raise SettingsError(f"network limits: {bound.name} must be a positive integer, got {value!r}")

    def check_options(self, architecture: Architecture) -> None:
        """Return if the options are small enough, whatever the samples; SettingsError if not."""
        numbers = [value for value in architecture.options.values() if isinstance(value, int)]
        if numbers and max(numbers) > self.max_option:
            raise SettingsError(f"options of a network must be at most {self.max_option}, got {architecture}")

    def check(self, architecture: Architecture, sample_shape: tuple[int, ...], num_classes: int) -> None:
        """Return if the network is small enough for samples of this shape.

        Raises:
            SettingsError: it is not, or it cannot read such samples.
        """
        self.check_options(architecture)
        with torch.device("meta"):  # where tensors have shapes and no memory
            network = architecture.build(sample_shape, num_classes, seed=0, device="meta")
        count = sum(parameter.numel() for parameter in network.parameters())
        if count > self.max_parameters:
            raise SettingsError(f"{architecture} has {count:,} weights, at most {self.max_parameters:,} are allowed")


DEFAULT_NETWORK_LIMITS = NetworkLimits()


def architectures_in(part: object) -> Iterator[Architecture]:
    """All architectures in the settings of a method, wherever its dataclasses, sequences and mappings hold one."""
    if isinstance(part, Architecture):
        yield part
    elif is_dataclass(part) and not isinstance(part, type):
        for one in fields(part):
            yield from architectures_in(getattr(part, one.name))
    elif isinstance(part, tuple | list):
        for inner in part:
            yield from architectures_in(inner)
    elif isinstance(part, Mapping):
        yield from architectures_in(list(part.values()))
