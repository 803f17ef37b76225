"""Every method in little time: one list of what takes time, for all tests that go through all methods."""

from __future__ import annotations

from typing import Any

from fedcl_distill.methods import Method, known_settings
from fedcl_distill.parameterizations import GeneratorLatents

# What each method calls the things that take time, made small. Of these, a method takes what it has.
QUICK: dict[str, Any] = {
    "real_batch_per_class": 4,
    "real_batch_size": 16,
    "inner_steps": 2,
    "inner_epochs": 1,
    "student_steps": 2,
    "expert_runs": 1,
    "expert_latest_start": 1,
    "expert_segment": 1,
    "expert_samples_per_snapshot": 16,
    "frequencies": 16,
    "pretrained_networks": 1,
    "pretraining_epochs": 1,
    "pool_networks": 1,
    "pool_epochs": 1,
    "samples_between": 8,
    "networks": 2,
    "queries_per_class": 2,
    "max_views": 2,
    "max_epochs": 2,
    "candidates_per_class": 4,
    "epochs": 2,
    "epsilon": None,
    "expected_batch": 8,
    "noise_seed": 0,
    "views": 2,
    "dimensions": 8,
    "public_range": (-1.0, 2.0),
}
GENERATOR = GeneratorLatents(width=4, generator_steps=2, inversion_steps=2)


def quick_settings(name: str) -> dict[str, Any]:
    """Settings of the method called ``name`` that make it quick; its network is the test's to choose."""
    known = known_settings(name)
    chosen = {key: value for key, value in QUICK.items() if key in known}
    if "generator" in known:
        chosen["generator"] = GENERATOR
    if Method.named(name).family == "trajectory matching":
        chosen["learning_rate"] = 10.0  # the published 1000 is for segments longer than these
    return chosen
