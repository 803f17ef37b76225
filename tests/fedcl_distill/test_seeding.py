"""Truth: independence and reproducibility, checked on draws."""

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from fedcl_distill.seeding import derive_seed, generator_for, global_states, isolated_rng


def test_a_path_names_a_draw_and_other_paths_name_others() -> None:
    seeds = {derive_seed(s, *path) for s in range(20) for path in [(), ("a",), ("a", 1), ("a", 2), ("b", 1)]}
    assert len(seeds) == 100
    assert derive_seed(3, "view", 7) == derive_seed(3, "view", 7)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_of_equal_paths_draw_alike() -> None:
    one, two = (torch.rand(5, generator=generator_for(1, "x", 2)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, torch.rand(5, generator=generator_for(1, "x", 3)))


def test_isolated_rng_seeds_inside_and_restores_outside(untouched_global_rng: None) -> None:
    with isolated_rng(5):
        inside = torch.rand(4)
    assert torch.equal(inside, torch.rand(4, generator=torch.Generator().manual_seed(5)))


def test_isolated_rng_restores_after_an_error(untouched_global_rng: None) -> None:
    try:
        with isolated_rng(5):
            torch.rand(3)
            raise RuntimeError
    except RuntimeError:
        pass


def test_isolated_rng_is_for_numpy_and_python_as_well() -> None:
    before = global_states()
    with isolated_rng(5):
        one = (np.random.rand(), random.random())  # noqa: NPY002
        assert global_states() != before
    assert global_states() == before
    with isolated_rng(5):
        assert one == (np.random.rand(), random.random())  # noqa: NPY002


def test_isolated_rng_lets_one_thread_in_at_a_time(untouched_global_rng: None) -> None:
    def draw(seed: int) -> list[float]:
        with isolated_rng(seed):
            return [float(torch.rand(())) for _ in range(200)]

    wanted = [draw(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(draw, range(8))) == wanted
