"""Kinds of network, by name, class, factory or module, with reproducible initial weights, within limits."""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import zoo as zoo  # registers the networks of the field
from fedcl_distill.networks.adapted import AdaptedNetwork, Layout, trial
from fedcl_distill.networks.base import NETWORKS, PRECISIONS, Network, Points, materialise
from fedcl_distill.registry import describe, parameters_of, parse, qualified_name, to_text
from fedcl_distill.seeding import derive_seed, isolated_rng
from fedcl_distill.settings import Count, check_values, hints_of, settings, suggest

_PRECISION = "precision"  # an option of every network
_PLAIN = (bool, int, float, str, type(None))


def list_architectures() -> list[str]:
    """Names of all registered networks."""
    return NETWORKS.names()


@dataclass(frozen=True)
class Architecture:
    """A kind of network: what builds it and its options such as ``width``; independent of data and weights.

    Whatever names a network becomes one of these by :meth:`of`. Every network has the option ``precision``: "float32",
    or "bfloat16", in which it computes embeddings from float32 weights (see
    :class:`~fedcl_distill.networks.Network`).

    Attributes:
        name: under which the network is registered; of others, by which Python knows it.
        options: what the builder is given beside the data's shape and classes.
        builder: of a network that is not registered.
        points: submodules that the user named; see :func:`as_network`.

    Raises:
        SettingsError: on construction, if the name, an option or the precision is unknown.
    """

    name: str = "convnet"
    options: Mapping[str, Any] = field(default_factory=dict)
    builder: Callable[..., nn.Module] | None = None
    points: Points = field(default_factory=Points)
    _layouts: dict[Any, _Trial] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        build = self._build_function()
        known = [*_options_of(build), _PRECISION]
        for key in self.options:
            if key not in known and not _takes_any(build):
                raise SettingsError(f"network {self.name!r}: {suggest('option', key, known)}")
        hints = _hints_of(build) if self.builder is None else {}
        given = {key: value for key, value in self.options.items() if key in hints}
        check_values(f"network {self.name!r}", {key: hints[key] for key in given}, given)
        if self.precision not in PRECISIONS:
            raise SettingsError(f"unknown precision {self.precision!r}; known: {', '.join(PRECISIONS)}")

    @classmethod
    def of(cls, value: ArchitectureLike) -> Architecture:
        """The architecture that ``value`` is or names.

        Args:
            value: an architecture; a registered name, with options or without (``"convnet:width=64"``, ``{"name":
                "convnet", "width": 64}``); an ``nn.Module`` class or any function that returns a module (a ``partial``,
                a lambda), which is given what :func:`~fedcl_distill.register_network` describes; or a module. A module
                gives its structure alone: it is copied, and every layer draws new weights by its
                ``reset_parameters``. An initialisation of its own, or trained weights, do not survive that; a class or
                function keeps the initialisation that its ``__init__`` does, drawn from our seed.

        Raises:
            SettingsError: it is none of these, or names something unknown.
        """
        if isinstance(value, Architecture):
            return value
        if isinstance(value, str):
            return cls.parse(value)
        if isinstance(value, Mapping):
            return cls._registered(value)
        if isinstance(value, nn.Module):
            template = Template(copy.deepcopy(value))
            return cls(f"{qualified_name(value)} (module {template.digest})", builder=template)
        if not callable(value) or (isinstance(value, type) and not issubclass(value, nn.Module)):
            raise SettingsError(
                "a network is given by a registered name, an nn.Module class, a function that returns a module, or a "
                f"module; got {repr(value)[:60]}"
            )
        function, given = _without_settings(value)
        name = NETWORKS.name_of(function)
        if name is not None and not set(given) & set(_DATA_ARGUMENTS):
            return cls(name, dict(given))
        return cls(_name_of(value), builder=value)

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Read ``convnet``, ``convnet:width=64`` or ``convnet:width=64,precision=bfloat16``.

        Raises:
            SettingsError: the text is not of that form, or names something unknown.
        """
        return cls._registered(parse(text))

    @classmethod
    def _registered(cls, plain: Mapping[str, Any]) -> Architecture:
        """What a text or a message describes: a registered name and plain options."""
        options = {str(key): value for key, value in plain.items() if key != "name"}
        name = str(plain.get("name"))
        if "" in options:
            options = {next(iter(_options_of(NETWORKS[name].build)), ""): options.pop(""), **options}
        for key, value in options.items():
            if not isinstance(value, _PLAIN) or (isinstance(value, float) and not math.isfinite(value)):
                raise SettingsError(f"network {name!r}: {key} must be a number or a word, got {str(value)[:60]!r}")
        return cls(name, options)

    @property
    def precision(self) -> str:
        """In which the network computes; a name out of :data:`PRECISIONS`."""
        return str(self.options.get(_PRECISION, "float32"))

    @property
    def text(self) -> str:
        """As :meth:`parse` reads it, for files and messages.

        Raises:
            SettingsError: only Python can make this network.
        """
        if self.builder is not None or self.points != Points():
            raise SettingsError(
                f"network {self} exists in this process alone; register_network('…') gives it a name that files, "
                "messages and other processes can use"
            )
        plain = self.describe()
        if not isinstance(plain, str) and not all(isinstance(value, _PLAIN) for value in self.options.values()):
            raise SettingsError(f"network {self} has options that have no text form")
        return to_text(plain)

    def describe(self) -> str | dict[str, Any]:
        """The plain form: the name, or a mapping with name, options and named submodules."""
        points = {key: value for key, value in vars(self.points).items() if value}
        more = {key: describe(value) for key, value in {**self.options, **points}.items()}
        return {"name": self.name, **more} if more else self.name

    def __str__(self) -> str:
        plain = self.describe()
        if isinstance(plain, str):
            return plain
        options = ",".join(f"{key}={value}" for key, value in sorted(plain.items()) if key != "name")
        return f"{self.name}({options})"

    def build(
        self, sample_shape: tuple[int, ...], num_classes: int, *, seed: int, device: str | torch.device = "cpu"
    ) -> Network:
        """A network with fresh weights drawn from ``seed`` alone; the global generators are left as they were.

        Weights of layers that do not follow the seed, since ``__init__`` seeds a generator itself or loads them, are
        drawn again by ``reset_parameters``.

        Raises:
            SettingsError: the network cannot be built, cannot read samples of this shape, or gives no logits of so many
                classes.
        """
        module = self._module(sample_shape, num_classes, seed)
        network = module if isinstance(module, Network) else self._adapted(module, sample_shape, num_classes, seed)
        network.precision = self.precision
        return network.to(device)

    def _adapted(self, module: nn.Module, sample_shape: tuple[int, ...], num_classes: int, seed: int) -> Network:
        meta = any(one.is_meta for one in module.parameters())
        key = (tuple(sample_shape), num_classes, meta)
        if key not in self._layouts:
            self._layouts[key] = self._trial(sample_shape, num_classes, meta=meta)
        found = self._layouts[key]
        _reset(module, found.resets, derive_seed(seed, "reset"))
        return AdaptedNetwork(module, found.layout)

    def _module(self, sample_shape: tuple[int, ...], num_classes: int, seed: int) -> nn.Module:
        """What the builder makes of ``seed``."""
        build = self._build_function()
        if len(sample_shape) == 1 and self.builder is None and NETWORKS[self.name].facts.get("images_only"):
            raise SettingsError(f"network {self.name!r} needs images, got feature vectors; use 'mlp'")
        options = {key: value for key, value in self.options.items() if key != _PRECISION}
        arguments = {**_data_arguments(build, sample_shape, num_classes), **options}
        try:
            with isolated_rng(seed):
                module = build(**arguments)
                if isinstance(module, nn.Module):
                    materialise(module, sample_shape)
        except SettingsError:
            raise
        except Exception as error:  # the user's code
            shape = "×".join(map(str, sample_shape))
            raise SettingsError(
                f"network {self} cannot be built for samples of shape {shape} and {num_classes} classes: {error}"
            ) from error
        if not isinstance(module, nn.Module):
            raise SettingsError(f"network {self} must be an nn.Module, its builder returned a {type(module).__name__}")
        return module

    def _trial(self, sample_shape: tuple[int, ...], num_classes: int, *, meta: bool) -> _Trial:
        """What trials with samples of this shape show of the network."""
        first = self._module(sample_shape, num_classes, 0)
        with isolated_rng(0):
            layout = trial(str(self), copy.deepcopy(first), self._points(), sample_shape, num_classes)
        if meta:
            return _Trial(layout, ())
        again, other = (self._module(sample_shape, num_classes, seed) for seed in (0, 1))
        template = isinstance(self.builder, Template)
        return _Trial(layout, _not_following(str(self), first, again, other, all_must=template))

    def _points(self) -> Points:
        registered = None if self.builder is not None else NETWORKS[self.name].facts.get("points")
        return self.points if registered is None or self.points != Points() else registered

    def _build_function(self) -> Callable[..., nn.Module]:
        return NETWORKS[self.name].build if self.builder is None else self.builder


ArchitectureLike: TypeAlias = (
    Architecture | str | Mapping[str, Any] | type[nn.Module] | Callable[..., nn.Module] | nn.Module
)
"""Whatever :meth:`Architecture.of` takes."""


@dataclass(frozen=True)
class _Trial:
    """The layout, and the submodules whose weights must be drawn again, in order."""

    layout: Layout
    resets: tuple[str, ...]


def as_network(
    module: ArchitectureLike,
    *,
    embedding: str | None = None,
    head: str | None = None,
    stages: Sequence[str] = (),
    precision: str | None = None,
) -> Architecture:
    """A kind of network whose embedding, classifier and stages are named, where they are not found by themselves.

    What is not named is found: the embedding by timm's contract (``forward_features``, ``forward_head``,
    ``num_features``, ``get_classifier``), else it is the input of the last ``nn.Linear`` that runs. A stage ends where
    the next child with weights (of two dimensions or more) begins; the last one is the embedding.

    Args:
        module: whatever an ``architecture=`` takes.
        embedding: the submodule whose output, flattened, is the embedding; None takes the input of the head.
        head: the submodule that makes logits of embeddings.
        stages: submodules whose outputs are looked at by methods that match several layers (CAFE), shallow first.
        precision: see :class:`Network`.

    Raises:
        SettingsError: ``module`` is no network. Names are looked up when one is built.

    Example:
        >>> from torch import nn
        >>> def build() -> nn.Module:
        ...     return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
        >>> as_network(build, head="3").build((1, 8, 8), 10, seed=0).embedding_size
        8
    """
    architecture = Architecture.of(module)
    options = dict(architecture.options) | ({} if precision is None else {_PRECISION: precision})
    return replace(architecture, options=options, points=Points(embedding, head, tuple(stages)))


def as_architecture(value: ArchitectureLike | None) -> Architecture | None:
    """See :meth:`Architecture.of`; None, which leaves the choice to the data, stays None."""
    return None if value is None else Architecture.of(value)


def architecture_for(value: ArchitectureLike | None, sample_shape: tuple[int, ...], width: int = 128) -> Architecture:
    """See :meth:`Architecture.of`; None takes :func:`default_architecture`."""
    return default_architecture(sample_shape, width) if value is None else Architecture.of(value)


def default_architecture(sample_shape: tuple[int, ...], width: int = 128) -> Architecture:
    """ConvNet for images, MLP for feature vectors, of the given width."""
    return Architecture("mlp" if len(sample_shape) == 1 else "convnet", {"width": width})


_DATA_ARGUMENTS: dict[str, Callable[[tuple[int, ...], int], Any]] = {
    "sample_shape": lambda shape, classes: shape,
    "input_shape": lambda shape, classes: shape,
    "num_classes": lambda shape, classes: classes,
    "n_classes": lambda shape, classes: classes,
    "in_channels": lambda shape, classes: shape[0],
    "num_channels": lambda shape, classes: shape[0],
    "in_chans": lambda shape, classes: shape[0],
    "in_features": lambda shape, classes: math.prod(shape),
}
"""What a builder is told of the data, by the names of its parameters."""


def _data_arguments(build: Callable[..., Any], sample_shape: tuple[int, ...], num_classes: int) -> dict[str, Any]:
    fixed = set(build.keywords) if isinstance(build, functools.partial) else set()
    known = _parameters(build)
    return {
        name: value(tuple(sample_shape), num_classes)
        for name, value in _DATA_ARGUMENTS.items()
        if name in known and name not in fixed
    }


def _options_of(build: Callable[..., Any]) -> list[str]:
    return [name for name in _parameters(build) if name not in _DATA_ARGUMENTS]


def _parameters(build: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return parameters_of(build)
    except (TypeError, ValueError):  # written in C, without a signature
        return {}


def _hints_of(build: Callable[..., Any]) -> dict[str, Any]:
    try:
        return hints_of(getattr(build, "__init__") if isinstance(build, type) else build)  # noqa: B009
    except (AttributeError, NameError, TypeError):  # annotations that cannot be read say nothing
        return {}


def _takes_any(build: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(build).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)


def _without_settings(build: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """What a ``partial`` calls, and its settings, if it has names for all of them."""
    if isinstance(build, functools.partial) and not build.args:
        return build.func, build.keywords
    return build, {}


def _name_of(build: Callable[..., Any]) -> str:
    """By what name Python knows it; a function, whose name says little, with eight digits that tell it from others."""
    function = build.func if isinstance(build, functools.partial) else build
    code = getattr(function, "__code__", None)
    if code is None or "<" not in function.__qualname__:
        return qualified_name(build)
    cells = [describe(cell.cell_contents) for cell in function.__closure__ or ()]
    parts = (code.co_code, code.co_names, code.co_consts, function.__defaults__, function.__kwdefaults__, cells)
    digest = hashlib.sha256(repr([_stable(part) for part in parts]).encode()).hexdigest()
    return f"{qualified_name(build)}#{digest[:8]}"


def _stable(part: Any) -> Any:
    """Without addresses, which change from one process to the next."""
    if isinstance(part, tuple | list):
        return [_stable(one) for one in part]
    if hasattr(part, "co_code"):
        return [part.co_code, _stable(part.co_names), _stable(part.co_consts)]
    return part if isinstance(part, bytes | complex) or part is Ellipsis else str(describe(part))


class Template:
    """Builds copies of a module."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __call__(self) -> nn.Module:
        return copy.deepcopy(self._module)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that name its structure."""
        shapes = [(name, tuple(one.shape)) for name, one in self._module.named_parameters()]
        return hashlib.sha256(f"{self._module!r} {shapes}".encode()).hexdigest()[:8]


def _not_following(
    name: str, first: nn.Module, again: nn.Module, other: nn.Module, *, all_must: bool
) -> tuple[str, ...]:
    """Submodules, inner ones first, with random weights that do not follow from the seed.

    Args:
        first, again, other: built from one seed, from the same, and from another one.
        all_must: raise for each of them that cannot draw anew, also for constants drawn long ago.

    Raises:
        SettingsError: one has no ``reset_parameters``, and its weights differ from one building to the next.
    """
    resets = []
    modules = [dict(one.named_modules()) for one in (first, again, other)]
    for place in reversed(modules[0]):
        three = [dict(one[place].named_parameters(recurse=False)) if place in one else {} for one in modules]
        random = [key for key, one in three[0].items() if _varies(one)]
        unstable = [key for key in random if not _equal(three[0][key], three[1].get(key))]
        stuck = [key for key in random if _equal(three[0][key], three[2].get(key))]
        if not unstable and not stuck:
            continue
        if _resetter(modules[0][place]) is not None:
            resets.append(place)
        elif unstable or all_must:
            where = ".".join(filter(None, (place, (unstable or stuck)[0])))
            raise SettingsError(
                f"network {name}: weights {where!r} cannot be drawn from a seed: "
                + (
                    "pass the class, or a function that builds the module, instead of a module"
                    if all_must
                    else "draw them from torch's, NumPy's or Python's global generator, or give their module a "
                    "reset_parameters method"
                )
            )
    return tuple(resets)


def _reset(module: nn.Module, places: Sequence[str], seed: int) -> None:
    if places:
        with isolated_rng(seed):
            for place in places:
                reset = _resetter(module.get_submodule(place))
                assert reset is not None, "only such modules are among the places"
                reset()


def _resetter(module: nn.Module) -> Callable[[], object] | None:
    found = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    return found if callable(found) else None


def _varies(one: Tensor) -> bool:
    return one.numel() > 1 and bool((one != one.flatten()[0]).any())


def _equal(one: Tensor, other: Tensor | None) -> bool:
    return other is not None and one.shape == other.shape and bool(torch.equal(one, other))


@settings
class NetworkLimits:
    """Bounds on a network, checked before anything of its size is allocated.

    Attributes:
        max_option: of each number among its options, such as width and depth.
        max_parameters: weights of the network, classifier included.

    Raises:
        SettingsError: on construction, if a bound is not a positive integer.
    """

    max_option: Count = 1024
    max_parameters: Count = 2**27

    def check_options(self, architecture: Architecture) -> None:
        """Return if the options are small enough, whatever the samples; SettingsError if not."""
        numbers = [value for value in architecture.options.values() if isinstance(value, int | float)]
        if numbers and max(numbers) > self.max_option:
            raise SettingsError(f"options of a network must be at most {self.max_option}, got {architecture}")

    def check(self, architecture: Architecture, sample_shape: tuple[int, ...], num_classes: int) -> None:
        """Return if the network is small enough for samples of this shape.

        It is built where tensors have shapes and no memory; a network that cannot be built there is refused.

        Raises:
            SettingsError: it is not, or it cannot read such samples.
        """
        self.check_options(architecture)
        with torch.device("meta"):
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
