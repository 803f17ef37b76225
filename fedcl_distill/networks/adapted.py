"""Any module as a :class:`~fedcl_distill.networks.Network`: where its embedding, head and stages are is found out."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from fedcl_distill.errors import SettingsError
from fedcl_distill.networks.base import Network, Points, tensors_of, trial_inputs
from fedcl_distill.registry import qualified_name
from fedcl_distill.seeding import global_states, isolated_rng

_TIMM = ("forward_features", "forward_head", "get_classifier", "num_features")
_TOLERANCE = 1e-3  # of a sample's logits, relative to the largest, between a batch and the sample alone


@dataclass(frozen=True)
class Layout:
    """What a trial showed of a module.

    Attributes:
        embedding: the submodule whose output is the embedding; "" for the input of ``head``, None for timm's contract.
        head: the submodule that makes logits of embeddings, where it is known.
        stages: submodules whose outputs are stages, or whose inputs are (``stages_end``).
        stages_end: a stage ends where the submodule begins, not where it ends.
        embedding_size, num_classes: of a sample's embedding and logits.
        draws_at_random: in training mode it draws random numbers.
    """

    embedding: str | None
    head: str | None
    stages: tuple[str, ...]
    stages_end: bool
    embedding_size: int
    num_classes: int
    draws_at_random: bool


class AdaptedNetwork(Network):
    """A module of the user's, as a :class:`Network`.

    Attributes:
        module: the user's; it is what :meth:`forward` runs, unchanged.
        layout: where embedding, head and stages are.
    """

    def __init__(self, module: nn.Module, layout: Layout) -> None:
        nn.Module.__init__(self)
        self.module = module
        self.layout = layout
        self.embedding_size, self.num_classes = layout.embedding_size, layout.num_classes
        self.draws_at_random = layout.draws_at_random
        self.training = module.training
        self._frozen = [one for one in module.parameters() if not one.requires_grad]

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """As for any module, but what the user's module froze stays frozen."""
        super().requires_grad_(requires_grad)
        for one in self._frozen:
            one.requires_grad_(False)
        return self

    @property
    def classifier(self) -> nn.Module:  # type: ignore[override]
        """The head.

        Raises:
            SettingsError: it is not known.
        """
        if self.layout.head is None:
            raise SettingsError(
                f"{type(self.module).__name__}: where its classifier begins is not known; name it: "
                "as_network(…, head='fc')"
            )
        return _submodule(self.module, self.layout.head)

    def forward(self, inputs: Tensor) -> Tensor:
        with self._computing(inputs):
            logits: Tensor = self.module(inputs)
        return logits.to(inputs.dtype)

    def embed(self, inputs: Tensor) -> Tensor:
        with self._computing(inputs):
            embedding = self._embedding(inputs)[0]
        return embedding.flatten(1).to(inputs.dtype)

    def embed_and_classify(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        with self._computing(inputs):
            embedding, logits = self._embedding(inputs)
        return embedding.flatten(1).to(inputs.dtype), logits.to(inputs.dtype)

    def stages(self, inputs: Tensor) -> list[Tensor]:
        names, end = self.layout.stages, self.layout.stages_end
        before, after = (names, ()) if end else ((), names)
        with self._computing(inputs), _listening(self.module, before, after) as heard:
            embedding = self._embedding(inputs)[0]
            reached = [_tensor(heard, name, len(inputs)).to(inputs.dtype) for name in names]
        embedding = embedding.to(inputs.dtype)
        if reached and not end and reached[-1].flatten(1).shape == embedding.flatten(1).shape:
            reached.pop()  # the last of the stages that were named is the embedding
        return [*reached, embedding]

    def _embedding(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding, not flattened, and logits."""
        return _embedding(self.module, self.layout.embedding, self.layout.head, inputs)


def _embedding(module: Any, embedding: str | None, head: str | None, inputs: Tensor) -> tuple[Tensor, Tensor]:
    if embedding is None:
        features = module.forward_features(inputs)
        return module.forward_head(features, pre_logits=True), module.forward_head(features)
    before, after = ((), (embedding,)) if embedding else ((str(head),), ())
    with _listening(module, before, after) as heard:
        logits = module(inputs)
    return _tensor(heard, embedding or str(head), len(inputs)), logits


def trial(name: str, module: nn.Module, points: Points, sample_shape: tuple[int, ...], num_classes: int) -> Layout:
    """Run ``module`` on two samples of noise, and say where its embedding, head and stages are.

    The module is left in training mode, its buffers as they were. Random numbers come from the global generators: to be
    called under :func:`~fedcl_distill.seeding.isolated_rng`. On the meta device nothing is computed.

    Raises:
        SettingsError: it cannot read such samples, does not give logits, mixes samples where it should not, or has no
            embedding that can be found.
    """
    if next(module.parameters(), None) is None:
        raise SettingsError(f"network {name} has no weights")
    device = next(iter([*module.parameters(), *module.buffers()])).device
    inputs = trial_inputs(sample_shape, device)
    buffers = [(one, one.clone()) for one in module.buffers()]
    random = _trains(name, module, inputs, num_classes)
    for buffer, before in buffers:
        buffer.copy_(before)
    module.eval()
    with torch.no_grad(), _calls(module) as calls:
        logits = _run(name, module, inputs)
    _check_logits(name, logits, num_classes)
    embedding, head = _places(name, module, points, calls, num_classes)
    try:
        with torch.no_grad():
            found = _embedding(module, embedding, head, inputs)[0].flatten(1)
    except SettingsError as error:
        raise SettingsError(f"network {name}: {error}") from error
    if device.type != "meta":
        _check_alone(name, module, inputs, logits)
    named = points.stages
    for one in named:
        _submodule(module, one)
    stages = named or _stages(module, calls, embedding or str(head), inclusive=bool(embedding))
    module.train()
    return Layout(embedding, head, stages, not named, found.shape[1], num_classes, random)


def adapted(module: nn.Module, sample_shape: tuple[int, ...], num_classes: int | None = None) -> Network:
    """A module as it is, with its weights, as a :class:`Network`; one that is a network already is returned.

    Args:
        num_classes: how many logits it must give; None takes any number.

    Raises:
        SettingsError: as for :func:`trial`.
    """
    if isinstance(module, Network):
        return module
    name = qualified_name(module)
    with isolated_rng(0), torch.no_grad():
        tried = copy.deepcopy(module).eval()
        if num_classes is None:
            logits = _run(name, tried, trial_inputs(sample_shape, next(tensors_of(tried)).device))
            num_classes = logits.shape[-1] if isinstance(logits, Tensor) and logits.ndim else 0
        return AdaptedNetwork(module, trial(name, tried, Points(), sample_shape, num_classes))


def _run(name: str, module: nn.Module, inputs: Tensor) -> Any:
    try:
        return module(inputs)
    except Exception as error:  # the user's code: whatever it raises, it did not accept such samples
        shape = "×".join(map(str, inputs.shape[1:]))
        raise SettingsError(f"network {name} cannot read samples of shape {shape}: {error}") from error


def _trains(name: str, module: nn.Module, inputs: Tensor, num_classes: int) -> bool:
    """Whether it draws random numbers in training mode, where it must give logits as well."""
    module.train()
    before = global_states()
    with torch.no_grad():
        logits = _run(name, module, inputs)
    _check_logits(name, logits, num_classes)
    return global_states() != before


def _check_logits(name: str, logits: object, num_classes: int) -> None:
    wanted = f"logits of shape (2, {num_classes}) for two samples of {num_classes} classes"
    if not isinstance(logits, Tensor):
        raise SettingsError(f"network {name} must return {wanted}, got a {type(logits).__name__}")
    if tuple(logits.shape) != (2, num_classes) or not logits.is_floating_point():
        hint = ""
        if logits.ndim == 2 and len(logits) == 2 and logits.shape[1] != num_classes:
            hint = f"; it tells {logits.shape[1]} classes apart, these data have {num_classes}"
        raise SettingsError(f"network {name} must return {wanted}, got {tuple(logits.shape)} of {logits.dtype}{hint}")
    if num_classes > 1 and not logits.is_meta:
        sums = logits.detach().sum(dim=1)
        if bool((logits.detach() >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-4):
            raise SettingsError(f"network {name} must return {wanted}, got probabilities; leave the softmax out")


@torch.no_grad()
def _check_alone(name: str, module: nn.Module, inputs: Tensor, logits: Tensor) -> None:
    alone = _run(name, module, inputs[:1])
    if float((alone - logits[:1]).abs().max()) > _TOLERANCE * max(1.0, float(logits.abs().max())):
        raise SettingsError(
            f"network {name}: in evaluation mode its logits of a sample depend on the rest of the batch, or on chance; "
            "batch norm, for instance, needs track_running_stats=True"
        )


def _places(
    name: str, module: nn.Module, points: Points, calls: Mapping[str, Tensor | None], num_classes: int
) -> tuple[str | None, str | None]:
    """Embedding and head, as :class:`Layout` has them."""
    linear = [key for key in calls if isinstance(_submodule(module, key), nn.Linear)]
    last = linear[-1] if linear else None
    fits = last is not None and getattr(_submodule(module, last), "out_features", None) == num_classes
    for one in filter(None, (points.embedding, points.head)):
        _submodule(module, one)
    if points.embedding is not None or points.head is not None:
        return points.embedding or "", points.head or (last if fits else None)
    if all(hasattr(module, one) for one in _TIMM):
        head = module.get_classifier()  # type: ignore[operator]
        return None, next((key for key, one in module.named_modules() if one is head), None)
    how = "name where the embedding is: as_network(…, embedding='layer4'), or the classifier: as_network(…, head='fc')"
    if last is None:
        raise SettingsError(f"network {name} runs no nn.Linear whose input could be the embedding; {how}")
    if not fits:
        raise SettingsError(
            f"network {name}: its last nn.Linear, {last!r}, does not make logits of {num_classes} classes; {how}"
        )
    return "", last


def _stages(module: nn.Module, calls: Mapping[str, Tensor | None], end: str, *, inclusive: bool) -> tuple[str, ...]:
    """Children that begin a stage: those with weights of two dimensions or more that run before ``end``, but the first.

    Where a single child has them all, its children are looked at instead.
    """
    order = list(calls)
    if end in calls:
        order = order[: order.index(end) + inclusive]
    prefix = ""
    while True:
        inside = [key for key in order if key.startswith(prefix)]
        level = [key for key in inside if "." not in key[len(prefix) :] and _has_matrix(_submodule(module, key))]
        if len(level) != 1 or len(inside) == len(level):
            return tuple(key for key in level[1:] if calls[key] is not None)
        prefix = f"{level[0]}."


def _has_matrix(module: nn.Module) -> bool:
    return any(one.ndim > 1 for one in module.parameters())


def _submodule(module: nn.Module, name: str) -> nn.Module:
    try:
        return module.get_submodule(name)
    except AttributeError as error:
        known = ", ".join(key for key, _ in module.named_children())
        raise SettingsError(
            f"{type(module).__name__} has no submodule {name!r}; its own are: {known or 'none'}"
        ) from error


@contextmanager
def _calls(module: nn.Module) -> Iterator[dict[str, Tensor | None]]:
    """Submodules by name in the order in which they are first called, with what they are first called on."""
    heard: dict[str, Tensor | None] = {}

    def hook(name: str) -> Any:
        def note(one: nn.Module, given: tuple[Any, ...]) -> None:
            if isinstance(one, nn.Linear):  # of these the last call counts
                heard.pop(name, None)
            heard.setdefault(name, given[0] if given and isinstance(given[0], Tensor) else None)

        return note

    handles = [one.register_forward_pre_hook(hook(name)) for name, one in module.named_modules() if name]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _listening(module: nn.Module, before: Iterable[str], after: Iterable[str]) -> Iterator[dict[str, Any]]:
    """What goes into the submodules ``before`` and comes out of those ``after``, by name; of several calls the last."""
    heard: dict[str, Any] = {}

    def on_input(name: str) -> Any:
        return lambda _, given: heard.__setitem__(name, given[0] if given else None)

    def on_output(name: str) -> Any:
        return lambda _, given, output: heard.__setitem__(name, output)

    handles = [_submodule(module, name).register_forward_pre_hook(on_input(name)) for name in before]
    handles += [_submodule(module, name).register_forward_hook(on_output(name)) for name in after]
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


def _tensor(heard: Mapping[str, Any], name: str, samples: int) -> Tensor:
    found = heard.get(name)
    if not isinstance(found, Tensor) or found.ndim < 2 or len(found) != samples:
        got = tuple(found.shape) if isinstance(found, Tensor) else "nothing" if found is None else type(found).__name__
        raise SettingsError(f"submodule {name!r} must pass on a tensor with a row for each sample, got {got}")
    return found
