"""Trajectory matching: MTT, MTT with pruned parameters, and TESLA."""

from __future__ import annotations

import os

from fedcl_distill.augmentation import Augmentation, Transform, as_augmentation
from fedcl_distill.engine import Budget, Engine, Initial, as_init
from fedcl_distill.labels import Labels, build_labels
from fedcl_distill.methods.registry import (
    REAL_TRAINING,
    SECOND_DERIVATIVES,
    register_method,
    takes_optimiser,
    variant_of,
    with_objective,
)
from fedcl_distill.network_sources import ExpertTrajectories
from fedcl_distill.networks import ArchitectureLike, as_architecture
from fedcl_distill.objectives import AllCoordinates, PrunedCoordinates, Tesla, TrajectoryMatching
from fedcl_distill.optimisers import SGD, Optimiser, as_optimiser
from fedcl_distill.parameterizations import PARAMETERIZATIONS, Parameterization
from fedcl_distill.registry import Plain
from fedcl_distill.settings import Count, Fraction, Momentum, Natural, NonNegative, Positive


@register_method(
    "mtt",
    family="trajectory matching",
    paper="Cazenavette et al. 2022, Dataset Distillation by Matching Training Trajectories",
    choose_when="you can train experts for long (once, they are cached), and have memory",
    needs=(SECOND_DERIVATIVES, REAL_TRAINING, "memory that grows with the student's steps"),
)
@takes_optimiser("learning_rate", "momentum")
def mtt(
    *,
    architecture: ArchitectureLike | None = None,
    augmentation: Augmentation | Transform | Plain | None = None,
    init: Initial | Plain = "random",
    parameterization: Parameterization | Plain = "pixels",
    labels: Labels | Plain = "hard",
    optimiser: Optimiser | Plain | None = None,
    learning_rate: Positive = 1000.0,
    momentum: Momentum = 0.5,
    decay_start: Fraction = 1.0,
    max_step: Positive | None = 0.1,
    student_steps: Count = 10,
    student_batch_size: Count | None = None,
    student_learning_rate: Positive = 0.01,
    student_learning_rate_rate: NonNegative = 1e-5,
    pruning_threshold: Fraction | None = None,
    expert_runs: Count = 100,
    expert_latest_start: Count = 8,
    expert_segment: Count = 2,
    expert_samples_per_snapshot: Count | None = 2048,
    expert_learning_rate: Positive = 0.01,
    expert_momentum: Momentum = 0.0,
    expert_batch_size: Count = 64,
    expert_seed: Natural | None = None,
    expert_cache: str | os.PathLike[str] | None = None,
    clamp: bool = False,
    budget: Budget | None = None,
) -> Engine:
    """Training on the synthetic samples must lead to where experts got on the real data (Cazenavette et al. 2022).

    The optimisers are those of the authors' code; segments are shorter, so that minutes of CPU suffice to train experts
    and to distil: on Fashion-MNIST, one image a class and width 32, two minutes of one thread lead from the 38.3 % of
    the random real images it starts from to 71.0 % (one set, three networks of width 32, protocol "fast").

    With a GPU and hours, take the authors' experts and steps: ``expert_samples_per_snapshot=None`` (an epoch),
    ``expert_batch_size=256``, ``expert_latest_start=25``, ``expert_segment=3``, ``student_steps=20``. For single data
    sets they vary the learning rate (100 to 100,000), steps (20 to 80), latest start (2 to 40) and segment (2 or 3).

    Args:
        architecture: of experts and students; None takes ConvNet-3 of width 128 (an MLP for features).
        augmentation: of the experts' and the students' batches; None takes DSA for images, without flips for digits.
        init: first samples: "random" real ones (the paper's), "kmeans", "herding", "k-center" or "noise".
        parameterization: how samples are stored, such as "tiles:factor=2".
        labels: "hard" ones, "learned:learning_rate=0.1" and the like, or a teacher's.
        optimiser: any callable that takes parameters, in place of SGD with ``learning_rate`` and ``momentum``.
        learning_rate, momentum: of SGD.
        decay_start: see :class:`~fedcl_distill.engine.MethodSpec`.
        max_step: see :class:`~fedcl_distill.engine.MethodSpec`; the
            authors have no such bound and vary the rate from one data set to the next.
        student_steps, student_batch_size, student_learning_rate, student_learning_rate_rate: see
            :class:`~fedcl_distill.objectives.TrajectoryMatching`.
        pruning_threshold: weights whose similarity is below it are left out: see
            :class:`~fedcl_distill.objectives.PrunedCoordinates`; None keeps all.
        expert_runs, expert_latest_start, expert_segment, expert_samples_per_snapshot, expert_learning_rate,
            expert_momentum, expert_batch_size, expert_seed, expert_cache: see
            :class:`~fedcl_distill.network_sources.ExpertTrajectories`.
        clamp: keep pixels inside the data's value range.
        budget: where a call gives none.
    """
    augmented = as_augmentation(augmentation)
    return Engine(
        name="mtt",
        objective=TrajectoryMatching(
            steps=student_steps,
            batch_size=student_batch_size,
            learning_rate=student_learning_rate,
            learning_rate_rate=student_learning_rate_rate,
            augmentation=augmented,
            coordinates=AllCoordinates() if pruning_threshold is None else PrunedCoordinates(pruning_threshold),
        ),
        networks=ExpertTrajectories(
            architecture=as_architecture(architecture),
            runs=expert_runs,
            latest_start=expert_latest_start,
            segment=expert_segment,
            samples_per_snapshot=expert_samples_per_snapshot,
            learning_rate=expert_learning_rate,
            momentum=expert_momentum,
            batch_size=expert_batch_size,
            augmentation=augmented,
            seed=expert_seed,
            cache=expert_cache,
        ),
        augmentation=augmented,
        parameterization=PARAMETERIZATIONS.build(parameterization),
        labels=build_labels(labels, learned=TrajectoryMatching.reads_labels),
        init=as_init(init),
        optimiser=as_optimiser(optimiser or SGD(learning_rate=learning_rate, momentum=momentum)),
        decay_start=decay_start,
        max_step=max_step,
        budget=budget or Budget(steps=5_000),
        clamp=clamp,
    )


@register_method(
    "mtt-pruned",
    family="trajectory matching",
    paper="Li et al. 2022, Dataset Distillation Using Parameter Pruning",
    choose_when="as mtt, where some weights cannot be matched by so few samples",
    needs=(SECOND_DERIVATIVES, REAL_TRAINING, "memory that grows with the student's steps"),
)
@variant_of(mtt, pruning_threshold=0.1)
def mtt_pruned(engine: Engine) -> Engine:
    """MTT on the weights that the student can match (Li et al. 2022, Dataset distillation using parameter pruning)."""
    return with_objective(engine, "mtt-pruned")


@register_method(
    "tesla",
    family="trajectory matching",
    paper="Cui et al. 2023, Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory",
    choose_when="as mtt, with many classes or many steps of the student",
    needs=(SECOND_DERIVATIVES, REAL_TRAINING),
)
@variant_of(mtt)
def tesla(engine: Engine) -> Engine:
    """MTT by a gradient whose memory is constant in the student's steps (Cui et al. 2023).

    See :class:`~fedcl_distill.objectives.Tesla` for what that gradient leaves out. Soft labels, which the paper takes
    for many classes, are ``labels="teacher"``.
    """
    return with_objective(engine, "tesla", gradient=Tesla())
