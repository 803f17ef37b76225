"""Fixtures that many tests share."""

from __future__ import annotations

import gc
import os

import pytest
import torch

from fedcl_distill.data import Splits, load

# Tests share the cores among processes, and bits depend on the number of threads, also in processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


def pytest_collection_finish() -> None:
    """Spare collections of garbage what lives until the end: modules and thousands of tests.

    Flower's Bulyan collects all garbage at every reply, a second each time beside so many objects.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def digits() -> Splits:
    return load("digits")


@pytest.fixture
def untouched_global_rng() -> object:
    """Fails the test if it changed torch's global generator."""
    before = torch.random.get_rng_state().clone()
    yield
    assert torch.equal(before, torch.random.get_rng_state()), "the global generator was used"
