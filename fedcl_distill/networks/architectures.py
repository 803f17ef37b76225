"""Networks by name, for any sample shape, with reproducible initial weights, within limits."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch

from fedcl_distill.errors import SettingsError
from fedcl_distill.networks.base import PRECISIONS, Network
from fedcl_distill.networks.zoo import alexnet, convnet, lenet, mlp, resnet18, vgg11
from fedcl_distill.seeding import isolated_rng

_BUILDERS: dict[str, Callable[..., Network]] = {
    "convnet": convnet,
    "mlp": mlp,
    "lenet": lenet,
    "resnet18": resnet18,
    "vgg11": vgg11,
    "alexnet": alexnet,
}
_FOR_FEATURES = ("mlp",)
_NUMBER = re.compile("[0-9]{1,9}")
_PRECISION = "precision"  # an option of every network


def list_architectures() -> list[str]:
    """Names that :class:`Architecture` takes."""
    return sorted(_BUILDERS)


@dataclass(frozen=True)
class Architecture:
    """A kind of network: its name and options such as ``width``; independent of data and weights.

    Every network has the option ``precision``: "float32", or "bfloat16", in which it computes embeddings from float32
    weights (see :class:`~fedcl_distill.networks.Network`).

    Raises:
        SettingsError: on construction, if the name, an option or the precision is unknown.
    """

    name: str = "convnet"
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in _BUILDERS:
            raise SettingsError(f"unknown network {self.name!r}; known: {', '.join(list_architectures())}")
        known = [
            p.name for p in inspect.signature(_BUILDERS[self.name]).parameters.values() if p.kind == p.KEYWORD_ONLY
        ]
        known.append(_PRECISION)
        unknown = sorted(set(self.options) - set(known))
        if unknown:
            raise SettingsError(f"network {self.name!r} has no option {', '.join(unknown)}; it has: {', '.join(known)}")
        if self.precision not in PRECISIONS:
            raise SettingsError(f"unknown precision {self.precision!r}; known: {', '.join(PRECISIONS)}")

    @property
    def precision(self) -> str:
        """In which the network computes; a name out of :data:`PRECISIONS`."""
        return str(self.options.get(_PRECISION, "float32"))

    def __str__(self) -> str:
        options = ",".join(f"{key}={value}" for key, value in sorted(self.options.items()))
        return f"{self.name}({options})" if options else self.name

    def build(
        self, sample_shape: tuple[int, ...], num_classes: int, *, seed: int, device: str | torch.device = "cpu"
    ) -> Network:
        """A network with fresh weights drawn from ``seed`` alone; the global generator is left as it was.

        Raises:
            SettingsError: the network cannot read samples of this shape.
        """
        if len(sample_shape) == 1 and self.name not in _FOR_FEATURES:
            raise SettingsError(f"network {self.name!r} needs images, got feature vectors; use 'mlp'")
        options = {key: value for key, value in self.options.items() if key != _PRECISION}
        with isolated_rng(seed):
            network = _BUILDERS[self.name](sample_shape, num_classes, **options)
        network.precision = self.precision
        return network.to(device)

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Read ``convnet``, ``convnet:width=64`` or ``convnet:width=64,precision=bfloat16``.

        Raises:
            SettingsError: the text is not of that form, or names something unknown.
        """
        name, _, rest = text.partition(":")
        options: dict[str, Any] = {}
        for item in filter(None, rest.split(",")):
            key, equals, value = item.partition("=")
            key, value = key.strip(), value.strip()
            if not equals or not (_NUMBER.fullmatch(value) or key == _PRECISION):
                raise SettingsError(f"cannot read network option {item!r} in {text!r}; expected key=integer")
            options[key] = int(value) if _NUMBER.fullmatch(value) else value
        return cls(name.strip(), options)


def default_architecture(sample_shape: tuple[int, ...], width: int = 128) -> Architecture:
    """ConvNet for images, MLP for feature vectors, of the given width."""
    return Architecture("mlp" if len(sample_shape) == 1 else "convnet", {"width": width})


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
