"""A pool of networks trained on the real data before the first step, each with the network it was before."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from fedcl_distill.networks import Architecture, Network
from fedcl_distill.problem import Problem
from fedcl_distill.seeding import derive_seed
from fedcl_distill.training import Recipe, fit


@dataclass(frozen=True)
class Pretrained:
    """The same network before and after training on the real data; both constant."""

    initial: Network
    trained: Network


def pretrained_pair(problem: Problem, architecture: Architecture, recipe: Recipe, index: int) -> Pretrained:
    """Network number ``index`` of the problem's pool, trained by ``recipe``.

    Where there is no more time, training ends after the step under way, so that there is one step at least.

    Raises:
        DivergenceError: the loss stopped being finite.
    """
    real, seed = problem.real, derive_seed(problem.seed, "pretrained", index)
    initial = architecture.build(real.sample_shape, real.num_classes, seed=seed, device=problem.device)
    trained = copy.deepcopy(initial)
    fit(trained, real.inputs(), real.labels, recipe, seed=seed, keep_going=problem.has_time)
    trained.zero_grad(set_to_none=True)
    return Pretrained(initial.requires_grad_(False), trained.requires_grad_(False))


def pretrained_pool(problem: Problem, architecture: Architecture, recipe: Recipe, count: int) -> list[Pretrained]:
    """Up to ``count`` pairs: the first in any case, each further one only while there is time.

    Raises:
        DivergenceError: the loss of one stopped being finite.
    """
    pool = [pretrained_pair(problem, architecture, recipe, 0)]
    while len(pool) < count and problem.has_time():
        pool.append(pretrained_pair(problem, architecture, recipe, len(pool)))
    return pool
