"""Every method by name, with what a user must know to choose one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedcl_distill.engine import Distiller
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods.cafe import cafe
from fedcl_distill.methods.core_sets import closest_to_mean, forgetting, herding, k_center, random
from fedcl_distill.methods.dc import dc, dcc, dsa
from fedcl_distill.methods.dd import dd, label_distillation
from fedcl_distill.methods.dm import dm
from fedcl_distill.methods.frepo import frepo
from fedcl_distill.methods.idc import accdd, idc
from fedcl_distill.methods.it_gan import it_gan
from fedcl_distill.methods.kip import kip
from fedcl_distill.methods.mtt import mtt, mtt_pruned, tesla
from fedcl_distill.methods.ncfm import ncfm
from fedcl_distill.methods.private_statistics import private_statistics
from fedcl_distill.methods.psg import psg
from fedcl_distill.methods.rfad import rfad
from fedcl_distill.methods.rtp import rtp

_DOUBLE = "double backward"
_REAL_TRAINING = "training on the real data"
_REAL_SAMPLES = "real samples in the result"


@dataclass(frozen=True)
class Method:
    """A named method.

    Attributes:
        name: what command lines and results call it.
        preset: returns the method with its paper's defaults; keyword arguments override them.
        family: of the field: core set, distribution matching, …
        paper: where it comes from.
        choose_when: one sentence of advice.
        needs: what it costs beside a network's forward and backward passes: "double backward" (second derivatives),
            "training on the real data" (before or while distilling), memory that grows with something, real samples in
            the result.
    """

    name: str
    preset: Callable[..., Distiller]
    family: str
    paper: str
    choose_when: str
    needs: tuple[str, ...] = ()


_DISTRIBUTION = (
    Method(
        "dm",
        dm,
        "distribution matching",
        "Zhao and Bilen 2023, Dataset Condensation with Distribution Matching",
        "you train ConvNets and have minutes of CPU: cheap steps, scales to many samples",
    ),
    Method(
        "cafe",
        cafe,
        "distribution matching",
        "Wang et al. 2022, CAFE: Learning to Condense Dataset by Aligning Features",
        "features of every layer shall agree, not of the last alone; it needs networks that learn from the set",
    ),
    Method(
        "ncfm",
        ncfm,
        "distribution matching",
        "Wang et al. 2025, Dataset Distillation with Neural Characteristic Function",
        "means say too little of a class: it compares whole distributions, and what it needs of the data is a sum",
        (_REAL_TRAINING,),
    ),
)
_GRADIENTS = (
    Method(
        "dc",
        dc,
        "gradient matching",
        "Zhao et al. 2021, Dataset Condensation with Gradient Matching",
        "as the classic that every paper compares with; dsa is the better choice",
        (_DOUBLE,),
    ),
    Method(
        "dsa",
        dsa,
        "gradient matching",
        "Zhao and Bilen 2021, Dataset Condensation with Differentiable Siamese Augmentation",
        "whoever trains on the set will augment it, and you have hours of CPU or a GPU",
        (_DOUBLE,),
    ),
    Method(
        "dcc",
        dcc,
        "gradient matching",
        "Lee et al. 2022, Dataset Condensation with Contrastive Signals",
        "classes look alike: it matches what tells them apart",
        (_DOUBLE,),
    ),
    Method(
        "idc",
        idc,
        "gradient matching",
        "Kim et al. 2022, Dataset Condensation via Efficient Synthetic-Data Parameterization",
        "bytes are few: four samples in the room of one, matched on networks that learn from real data",
        (_DOUBLE, _REAL_TRAINING),
    ),
    Method(
        "accdd",
        accdd,
        "gradient matching",
        "Zhang et al. 2023, Accelerating Dataset Distillation via Model Augmentation",
        "as idc, with networks trained once and perturbed instead of trained again and again",
        (_DOUBLE, _REAL_TRAINING),
    ),
)
_TRAJECTORIES = (
    Method(
        "mtt",
        mtt,
        "trajectory matching",
        "Cazenavette et al. 2022, Dataset Distillation by Matching Training Trajectories",
        "you can train experts for long (once, they are cached), and have memory",
        (_DOUBLE, _REAL_TRAINING, "memory that grows with the student's steps"),
    ),
    Method(
        "mtt-pruned",
        mtt_pruned,
        "trajectory matching",
        "Li et al. 2022, Dataset Distillation Using Parameter Pruning",
        "as mtt, where some weights cannot be matched by so few samples",
        (_DOUBLE, _REAL_TRAINING, "memory that grows with the student's steps"),
    ),
    Method(
        "tesla",
        tesla,
        "trajectory matching",
        "Cui et al. 2023, Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory",
        "as mtt, with many classes or many steps of the student",
        (_DOUBLE, _REAL_TRAINING),
    ),
)
_PERFORMANCE = (
    Method(
        "frepo",
        frepo,
        "performance matching",
        "Zhou et al. 2022, Dataset Distillation using Neural Feature Regression",
        "you have some minutes and few samples a class: no second derivatives, learned labels",
    ),
    Method(
        "rfad",
        rfad,
        "performance matching",
        "Loo et al. 2022, Efficient Dataset Distillation using Random Feature Approximation",
        "the result shall serve kernel regression, or networks nobody trained",
        ("memory that grows with the real batch",),
    ),
    Method(
        "kip",
        kip,
        "performance matching",
        "Nguyen et al. 2021, Dataset Meta-Learning from Kernel Ridge-Regression",
        "the result shall serve kernel regression or an MLP; features rather than images; steps of milliseconds",
    ),
    Method(
        "dd",
        dd,
        "performance matching",
        "Wang et al. 2018, Dataset Distillation",
        "whoever trains on the set will follow the same schedule of few steps, with the learned rates",
        (_DOUBLE, "memory that grows with the inner steps"),
    ),
    Method(
        "label-distillation",
        label_distillation,
        "performance matching",
        "Bohdal et al. 2020, Flexible Dataset Distillation: Learn Labels Instead of Images",
        "samples are given (public ones, say) and only their labels may carry knowledge",
        (_DOUBLE, _REAL_SAMPLES, "memory that grows with the inner steps"),
    ),
    Method(
        "rtp",
        rtp,
        "performance matching",
        "Deng and Russakovsky 2022, Remember the Past: Distilling Datasets into Addressable Memories",
        "bytes are very few and time is plenty: classes share what they are made of",
        (_DOUBLE, "memory that grows with the inner steps"),
    ),
)
_GENERATIVE = (
    Method(
        "it-gan",
        it_gan,
        "generative",
        "Zhao and Bilen 2022, Synthesizing Informative Training Samples with GAN",
        "samples shall look like data, or many share one generator whose weights are paid once",
        (_REAL_TRAINING,),
    ),
)
_PRIVATE = (
    Method(
        "private-statistics",
        private_statistics,
        "differentially private",
        "distribution matching (Zhao and Bilen 2023) on one noisy release (Dwork et al. 2006)",
        "records must be protected and classes have thousands of them: one noisy sum, then anything you like",
    ),
    Method(
        "psg",
        psg,
        "differentially private",
        "Chen et al. 2022, Private Set Generation with Discriminative Information",
        "records must be protected, and you want the published method; it takes many steps",
        (_DOUBLE,),
    ),
)
_CORE_SETS = (
    Method("random", random, "core set", "-", "as the baseline of every comparison", (_REAL_SAMPLES,)),
    Method(
        "herding",
        herding,
        "core set",
        "Welling 2009; Rebuffi et al. 2017 (iCaRL)",
        "you may keep real samples and want one or a few typical ones",
        (_REAL_SAMPLES,),
    ),
    Method(
        "k-center",
        k_center,
        "core set",
        "Sener and Savarese 2018",
        "you may keep real samples and want to cover rare ones",
        (_REAL_SAMPLES,),
    ),
    Method(
        "closest-to-mean",
        closest_to_mean,
        "core set",
        "the simplest of the baselines in Castro et al. 2018 and others",
        "you may keep real samples and want the most typical ones only",
        (_REAL_SAMPLES,),
    ),
    Method(
        "forgetting",
        forgetting,
        "core set",
        "Toneva et al. 2019, An Empirical Study of Example Forgetting",
        "you may keep many real samples and want the hard ones; with few it is worse than random",
        (_REAL_SAMPLES, _REAL_TRAINING),
    ),
)
CATALOGUE = (*_DISTRIBUTION, *_GRADIENTS, *_TRAJECTORIES, *_PERFORMANCE, *_GENERATIVE, *_PRIVATE, *_CORE_SETS)


METHODS = {method.name: method for method in CATALOGUE}


def list_methods() -> list[str]:
    """Names of all methods."""
    return sorted(METHODS)


def known_settings(name: str) -> list[str]:
    """Names of the settings that the method called ``name`` takes.

    Raises:
        SettingsError: there is no such method.
    """
    if name not in METHODS:
        raise SettingsError(f"unknown method {name!r}; known: {', '.join(list_methods())}")
    return list(inspect.signature(METHODS[name].preset).parameters)


def build_method(name: str, **settings: Any) -> Distiller:
    """The method called ``name``, with ``settings`` in place of its defaults.

    Raises:
        SettingsError: the method or a setting is unknown, or settings do not fit together.
    """
    known = known_settings(name)
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise SettingsError(
            f"method {name!r} has no setting {', '.join(unknown)}; it has: {', '.join(known) or 'none'}"
        )
    return METHODS[name].preset(**settings)
