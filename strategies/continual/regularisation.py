"""What holds a model near its past: EWC, LwF, A-GEM, and what iCaRL adds to replay."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.models import avalanche_forward
from avalanche.models.utils import is_multi_task_module
from avalanche.training.losses import ICaRLLossPlugin
from avalanche.training.plugins import AGEMPlugin, EWCPlugin, LwFPlugin
from avalanche.training.utils import ParamData, zerolike_params_dict
from torch import Tensor, nn
from torch.nn import functional as F

from fedcl_distill.data import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Network, adapted
from fedcl_distill.networks.base import micro_batches
from fedcl_distill.synthetic import SyntheticSet
from strategies.continual.replay import Replay

_FLOAT_BYTES = 4


class EWC(EWCPlugin):  # type: ignore[misc]
    """Elastic weight consolidation (Kirkpatrick et al. 2017): weights that mattered are held where they were.

    How much a weight mattered is the diagonal of the empirical Fisher information: the mean, over samples, of its
    squared gradient under the loss. Avalanche squares the mean gradient of a batch instead, which is smaller by about
    the size of the batch (at 64 samples 1.8 % of the diagonal), so that the same strength meant something else at every
    batch size; here it does not. On digits in five tasks, 600 samples in all, a strength of 200 kept 95.5 % where none
    kept 94.7; 20 changed nothing, 2,000 was too stiff to learn (76 %).

    Args:
        strength: of the penalty (λ, without the paper's factor a half).
        samples: of each experience, evenly spread, that importances are measured on, one by one.

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    def __init__(self, strength: float = 100.0, *, samples: int = 1024) -> None:
        if not 0 <= strength < float("inf") or samples < 1:
            raise SettingsError(f"EWC needs strength ≥ 0 and samples ≥ 1, got {strength} and {samples}")
        super().__init__(ewc_lambda=strength, mode="separate")
        self.samples = samples

    def compute_importances(
        self, model: nn.Module, criterion: Any, optimizer: Any, dataset: Any, device: Any, *args: Any, **kwargs: Any
    ) -> dict[str, ParamData]:
        """Mean squared gradients of single samples, for each parameter; the model is judged as it is in use."""
        importances: dict[str, ParamData] = zerolike_params_dict(model)
        weights = dict(model.named_parameters())
        dataset, count = dataset.eval(), min(self.samples, len(dataset))
        model.eval()
        for row in torch.linspace(0, len(dataset) - 1, count).round().long().tolist():
            inputs, label, *task = dataset[row]
            tasks = torch.tensor([int(task[0]) if task else 0], device=device)
            logits = avalanche_forward(model, inputs[None].to(device), tasks)
            loss = criterion(logits, torch.tensor([int(label)], device=device))
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            for name, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:  # other tasks' heads have none
                    importances[name].data += gradient.square() / count
        model.train()
        return importances

    @property
    def bytes_kept(self) -> int:
        """Of weights and importances of every experience."""
        kept = [*self.importances.values(), *self.saved_params.values()]
        return sum(_FLOAT_BYTES * one.data.numel() for experience in kept for one in experience.values())

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"weights": _tensors(self.saved_params), "importances": _tensors(self.importances)}

    def restore(self, state: dict[str, Any], network: nn.Module) -> None:
        """Go on from another plugin's :meth:`state`."""
        for kept, saved in ((self.saved_params, state["weights"]), (self.importances, state["importances"])):
            for experience, tensors in saved.items():
                kept[experience] = {name: _parameter(name, tensor) for name, tensor in tensors.items()}


class LwF(LwFPlugin):  # type: ignore[misc]
    """Learning without forgetting (Li and Hoiem 2016): the model before this experience is its teacher.

    Avalanche keeps the classes of each task apart and looks only at those of task 0 where the model has one head, so
    that other tasks would be forgotten in silence; here a single head has the classes of all.

    Args:
        strength: of the distillation (α).
        temperature: of both softmaxes.
    """

    def __init__(self, strength: float = 1.0, temperature: float = 2.0) -> None:
        if not 0 <= strength < float("inf") or not 0 < temperature < float("inf"):
            raise SettingsError(f"LwF needs strength ≥ 0 and a positive temperature, got {strength} and {temperature}")
        super().__init__(alpha=strength, temperature=temperature)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        super().after_training_exp(strategy)
        if is_multi_task_module(strategy.model):  # each head has classes of its own
            return
        self._know({0: {label for task in self.lwf.prev_classes_by_task.values() for label in task}})

    @property
    def bytes_kept(self) -> int:
        """Of the teacher."""
        return bytes_of_model(self.lwf.prev_model)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        teacher = {} if self.lwf.prev_model is None else self.lwf.prev_model.state_dict()
        known = {int(task): sorted(map(int, classes)) for task, classes in self.lwf.prev_classes_by_task.items()}
        return {"teacher": teacher, "classes": known}

    def restore(self, state: dict[str, Any], network: nn.Module) -> None:
        """Go on from another plugin's :meth:`state`; ``network`` gives the architecture."""
        if state["teacher"]:
            self.lwf.prev_model = deepcopy(network)
            self.lwf.prev_model.load_state_dict(state["teacher"])
        self._know({task: set(classes) for task, classes in state["classes"].items()})

    def _know(self, classes: dict[int, set[int]]) -> None:
        self.lwf.prev_classes_by_task.clear()
        self.lwf.prev_classes_by_task.update(classes)


class Source(Replay):
    """A memory that takes in experiences and is drawn from, but adds nothing to training batches."""

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Leave the batch alone."""


class AGEM(AGEMPlugin):  # type: ignore[misc]
    """A-GEM (Chaudhry et al. 2019) on any memory: no step may raise the loss of what is remembered, to first order.

    Avalanche's plugin keeps samples of its own; this one draws from a replay plugin, which adds nothing to batches.

    Args:
        source: takes in experiences, and is drawn from.
        sample_size: samples that the reference gradient is computed on.
    """

    def __init__(self, source: Source, sample_size: int = 64) -> None:
        if sample_size < 1:
            raise SettingsError(f"sample_size must be at least 1, got {sample_size}")
        super().__init__(patterns_per_experience=0, sample_size=sample_size)
        self._source = source

    @property
    def bytes_kept(self) -> int:
        """Nothing beside the source."""
        return 0

    def state(self) -> dict[str, Any]:
        """Nothing: the source holds it."""
        return {}

    def restore(self, state: dict[str, Any], network: nn.Module) -> None:
        """Nothing."""

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Draw from the source where it holds something."""
        self.buffers = [self._source] if self._source.holds_samples else []

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """The source takes in the experience."""

    def sample_from_memory(self) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, labels and the task of each sample."""
        drawn = self._source.draw(self.sample_size)
        return drawn.inputs, drawn.labels, drawn.tasks


def bytes_of_model(model: nn.Module | None) -> int:
    """Of weights and buffers as they are kept; 0 without a model."""
    return 0 if model is None else sum(_FLOAT_BYTES * one.numel() for one in model.state_dict().values())


def _tensors(kept: dict[int, dict[str, ParamData]]) -> dict[int, dict[str, Tensor]]:
    return {at: {name: one.data.detach().cpu() for name, one in experience.items()} for at, experience in kept.items()}


def _parameter(name: str, tensor: Tensor) -> ParamData:
    return ParamData(name, tensor.shape, init_tensor=tensor)


@dataclass(frozen=True)
class NetworkEmbedding:
    """The embedding of a network as it is when asked, scaled to length 1: where iCaRL herds and classifies.

    Attributes:
        network: the model in training, any module.
    """

    network: nn.Module

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        """float32 (n, d)."""
        return directions(adapted(self.network, real.sample_shape), real.inputs())


@torch.no_grad()
def directions(network: Network, inputs: Tensor) -> Tensor:
    """float32 (n, d): embeddings of ``inputs`` scaled to length 1, on the CPU."""
    device, training = next(network.parameters()).device, network.training
    network.eval()
    embedded = torch.cat([network.embed(part.to(device)).cpu() for (part,) in micro_batches(inputs)])
    network.train(training)
    return F.normalize(embedded, dim=1)


class NearestMean(nn.Module):
    """Classifies by the nearest mean of remembered samples in the model's embedding.

    Avalanche's classifier gives classes without exemplars a mean of zero, which may well be the nearest; here they are
    never chosen.

    Args:
        network: whose embedding counts, any module.
        exemplars: what is remembered.
    """

    means: Tensor
    known: Tensor

    def __init__(self, network: nn.Module, exemplars: SyntheticSet) -> None:
        super().__init__()
        self.network = adapted(network, exemplars.sample_shape)
        embedded, labels = directions(self.network, exemplars.inputs()), exemplars.hard_labels
        sums = torch.zeros(exemplars.num_classes, embedded.shape[1]).index_add_(0, labels, embedded)
        self.register_buffer("means", F.normalize(sums, dim=1))
        self.register_buffer("known", exemplars.class_counts > 0)
        self.to(next(network.parameters()).device)

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 (n, classes): on unit vectors, the largest product belongs to the nearest mean."""
        products = F.normalize(self.network.embed(inputs), dim=1) @ self.means.T
        return products.masked_fill(~self.known, float("-inf"))


class ICaRLLoss(ICaRLLossPlugin):  # type: ignore[misc]
    """Avalanche's loss, summed over classes as in the paper instead of averaged; and able to go on from a checkpoint.

    The replay plugin must come before it, so that the old model sees the whole batch.
    """

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse what iCaRL does not know: several heads."""
        if is_multi_task_module(strategy.model):
            raise SettingsError("iCaRL has one output for each class, but the model has a head for each task")

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = super().__call__(logits, targets) * logits.shape[1]
        return loss

    @property
    def bytes_kept(self) -> int:
        """Of the old model."""
        return bytes_of_model(self.old_model)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        old = {} if self.old_model is None else self.old_model.state_dict()
        return {"old": old, "classes": list(map(int, self.old_classes))}

    def restore(self, state: dict[str, Any], network: nn.Module) -> None:
        """Go on from another loss's :meth:`state`; ``network`` gives the architecture."""
        if state["old"]:
            self.old_model = deepcopy(network)
            self.old_model.load_state_dict(state["old"])
        self.old_classes = state["classes"]
