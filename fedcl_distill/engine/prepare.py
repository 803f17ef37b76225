"""What happens before the first step: initial samples, arrays, labels, networks and the optimiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedcl_distill.engine.budget import Budget
from fedcl_distill.engine.optimiser import Group
from fedcl_distill.engine.parts import Parts
from fedcl_distill.engine.state import DistillationState
from fedcl_distill.labels import Labelling
from fedcl_distill.problem import Problem
from fedcl_distill.seeding import derive_seed

# By which fraction of a budget in seconds the preparation of each part must end, in the order in which they prepare.
_DECODER_UNTIL, _TEACHER_UNTIL, _NETWORKS_UNTIL = 1 / 3, 0.4, 0.5


@dataclass(frozen=True)
class Ready:
    """All that a run starts from; ``classes``, int64 (n,), and ``starts`` (n, …) belong to the decoded samples."""

    state: DistillationState
    classes: Tensor
    starts: Tensor
    labelling: Labelling


def prepare(method: Parts, problem: Problem, counts: Sequence[int], started: float) -> Ready:
    """Let every part of ``method`` prepare itself; ``started`` is when its budget's clock began."""

    def until(fraction: float, path: str) -> Problem:
        return replace(
            problem, seed=derive_seed(problem.seed, path), has_time=_deadline(method.budget, started, fraction)
        )

    real, device, how = problem.real, problem.device, method.parameterization
    decoded = how.decoded_counts(counts, real.sample_shape)
    classes = torch.repeat_interleave(torch.arange(real.num_classes), torch.tensor(decoded)).to(device)
    samples = method.initial.samples(real, decoded, seed=derive_seed(problem.seed, "initial"))
    arrays = how.start(samples, counts, until(_DECODER_UNTIL, "parameterization"))
    arrays = {name: array.detach().to(device) for name, array in arrays.items()}
    labelling = method.labels.open(until(_TEACHER_UNTIL, "labels"))
    with torch.no_grad():
        labels = labelling.initial(how.decode(arrays), classes).clone()
    learned = {name: one.start.clone().to(device).requires_grad_() for name, one in method.objective.learned().items()}
    state = DistillationState(
        arrays=arrays,
        labels=labels if method.labels.learning_rate is None else labels.requires_grad_(),
        learned=learned,
        optimiser=method.optimiser.build(_groups(method, arrays, labels, learned)),
        supply=method.networks.open(until(_NETWORKS_UNTIL, "networks")),
    )
    return Ready(state, classes, samples.to(device), labelling)


def _deadline(budget: Budget, started: float, fraction: float) -> Callable[[], bool]:
    if budget.seconds is None:
        return lambda: True
    until = started + fraction * budget.seconds
    return lambda: budget.now() < until


def _groups(method: Parts, arrays: dict[str, Tensor], labels: Tensor, learned: dict[str, Tensor]) -> list[Group]:
    """What is optimised at which rate; the stored arrays come first."""
    free = [array.requires_grad_() for name, array in arrays.items() if name not in method.parameterization.frozen]
    groups = [Group(tuple(free))]
    if method.labels.learning_rate is not None:
        groups.append(Group((labels,), method.labels.learning_rate))
    rates = method.objective.learned()
    return groups + [Group((tensor,), rates[name].learning_rate) for name, tensor in learned.items()]
