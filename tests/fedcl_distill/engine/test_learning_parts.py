"""Truth: parts made for the test, whose effect on the engine can be told by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from builders import blobs
from fedcl_distill.context import RealSampler, SetupContext, SyntheticBatch
from fedcl_distill.engine import SGD, Adam, Budget, Engine, Noise
from fedcl_distill.errors import SettingsError
from fedcl_distill.labels import Labelling
from fedcl_distill.methods import dm
from fedcl_distill.network_sources import DrawnNetwork, NetworkSampler, NetworkSource, NoNetwork
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.objectives import DistributionMatching, Learned, MatchContext, Objective
from fedcl_distill.parameterizations import Pixels
from stopping import StopAt

ARCHITECTURE = Architecture("mlp", {"width": 4})


class Pull(Objective[None]):
    """Pulls samples to 1, labels to (0, …, 0, 2), and a learned number to 3; each a parabola."""

    needs_network: ClassVar[bool] = False
    reads_labels: ClassVar[bool] = True

    def learned(self) -> dict[str, Learned]:
        return {"number": Learned(torch.tensor(1.0), learning_rate=0.25)}

    def target(self, view: MatchContext, real: RealSampler) -> None:
        return None

    def losses(self, view: MatchContext, target: None, synthetic: SyntheticBatch) -> Iterator[Tensor]:
        yield (synthetic.inputs - 1).square().sum() / 2
        if synthetic.labels.requires_grad:
            yield (synthetic.labels[:, -1] - 2).square().sum() / 2
        yield (synthetic.learned["number"] - 3).square() / 2


@dataclass(frozen=True)
class OneHotLearned:
    soft: ClassVar[bool] = True
    learning_rate: float = 0.5

    def open(self, problem: SetupContext) -> Labelling:
        class OneHot(Labelling):
            def initial(self, inputs: Tensor, classes: Tensor) -> Tensor:
                return torch.nn.functional.one_hot(classes, problem.real.num_classes).float()

        return OneHot()

    def settings(self) -> dict[str, Any]:
        return {"labels": "one-hot, learned"}


def pull(**changes: Any) -> Engine:
    engine = Engine(Pull(), NoNetwork(), Noise(), Budget(steps=1), optimiser=SGD(learning_rate=0.5, momentum=0))
    return replace(engine, **changes)


def test_samples_labels_and_scalars_learn_at_their_own_rates() -> None:
    data = blobs(per_class=4)
    before = pull().distil(data, 1, seed=0, budget=Budget(steps=0)).inputs()
    after = pull(labels=OneHotLearned()).distil(data, 1, seed=0)
    torch.testing.assert_close(after.inputs(), before + 0.5 * (1 - before))
    assert after.provenance["learned"] == {"number": pytest.approx(1.5)}
    # (1, 0, 0) moves to (1, 0, 1) and is projected to (½, 0, ½); (0, 0, 1) to (0, 0, 1.5) and back.
    expected = torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(after.labels, expected)


@dataclass(frozen=True)
class HalfFrozen(Pixels):
    """Pixels plus a constant that decoding adds and optimisation must leave alone."""

    name: ClassVar[str] = "half frozen"
    frozen: ClassVar[frozenset[str]] = frozenset({"constant"})

    def start(self, samples: Tensor, counts: Any, problem: SetupContext) -> dict[str, Tensor]:
        return {"pixels": samples - 2.0, "constant": torch.tensor([2.0])}

    def decode(self, arrays: Any) -> Tensor:
        return arrays["pixels"] + arrays["constant"]

    def decoded_shape(self, shapes: Any) -> tuple[int, ...]:
        return tuple(shapes["pixels"])


def test_frozen_arrays_stay_as_they_are() -> None:
    data = blobs(per_class=4)
    free = pull().distil(data, 1, seed=0, budget=Budget(steps=3))
    frozen = pull(parameterization=HalfFrozen()).distil(data, 1, seed=0, budget=Budget(steps=3))
    assert frozen.arrays["constant"].item() == 2.0
    torch.testing.assert_close(frozen.inputs(), free.inputs())


@dataclass(frozen=True)
class Remembering(NetworkSource):
    """One network all along, moved a little towards the synthetic mean after each view."""

    def prepare(self, problem: SetupContext) -> NetworkSampler:
        return _RememberingSampler(ARCHITECTURE.build(problem.real.sample_shape, 3, seed=1))


class _RememberingSampler(NetworkSampler):
    def __init__(self, network: Network) -> None:
        self.network = network.requires_grad_(False)
        self.views: list[int] = []

    def draw(self, index: int, seed: int) -> DrawnNetwork:
        return DrawnNetwork(self.network)

    def update(self, index: int, seed: int, synthetic: SyntheticBatch) -> None:
        self.views.append(index)
        assert not synthetic.inputs.requires_grad
        for weight in self.network.parameters():
            weight.add_(synthetic.inputs.mean())

    def state(self) -> dict[str, Any]:
        return {"weights": {k: v.clone() for k, v in self.network.state_dict().items()}, "views": list(self.views)}

    def restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["weights"])
        self.views = state["views"]


@pytest.mark.parametrize(("stop", "steps_per_network"), [(4, 1), (4, 3), (3, 3), (5, 3)])
def test_networks_that_learn_resume_to_the_same_bits(tmp_path: Path, stop: int, steps_per_network: int) -> None:
    data, path = blobs(), tmp_path / "run.pt"
    distiller = replace(dm(real_batch_per_class=8), networks=Remembering(), steps_per_network=steps_per_network)
    budget = Budget(steps=8)
    whole = distiller.distil(data, 2, seed=0, budget=budget)
    distiller.distil(data, 2, seed=0, budget=budget, checkpoint=path, callbacks=[StopAt(stop)])
    resumed = distiller.distil(data, 2, seed=0, budget=budget, checkpoint=path)
    assert torch.equal(resumed.inputs(), whole.inputs())


def test_adam_resumes_with_its_moments(tmp_path: Path) -> None:
    data, path = blobs(), tmp_path / "run.pt"
    distiller = pull(optimiser=Adam(learning_rate=0.1), labels=OneHotLearned())
    whole = distiller.distil(data, 2, seed=0, budget=Budget(steps=8))
    distiller.distil(data, 2, seed=0, budget=Budget(steps=8), checkpoint=path, callbacks=[StopAt(5)])
    resumed = distiller.distil(data, 2, seed=0, budget=Budget(steps=8), checkpoint=path)
    assert torch.equal(resumed.inputs(), whole.inputs())
    assert torch.equal(resumed.labels, whole.labels)
    assert resumed.provenance["learned"] == whole.provenance["learned"]


def test_the_gradient_norm_is_bounded() -> None:
    data = blobs(per_class=4)
    before = pull().distil(data, 1, seed=0, budget=Budget(steps=0)).inputs()
    plain = SGD(learning_rate=1.0, momentum=0)
    after = pull(optimiser=plain, max_grad_norm=0.1).distil(data, 1, seed=0).inputs()
    assert float((after - before).norm()) == pytest.approx(0.1, rel=1e-4)


def test_a_step_is_bounded_in_the_root_mean_square() -> None:
    data = blobs(per_class=4)
    before = pull().distil(data, 1, seed=0, budget=Budget(steps=0)).inputs()
    plain = SGD(learning_rate=1.0, momentum=0)
    after = pull(optimiser=plain, max_step=0.25).distil(data, 1, seed=0).inputs()
    assert float((after - before).square().mean().sqrt()) == pytest.approx(0.25, rel=1e-4)
    unbounded = pull(optimiser=plain, max_step=100.0).distil(data, 1, seed=0).inputs()
    torch.testing.assert_close(unbounded, torch.ones_like(before))


class NeedsGoal(DistributionMatching):
    needs_target_network: ClassVar[bool] = True


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"objective": NeedsGoal()}, "training on the real data"),
        ({"networks": NoNetwork()}, "looks through networks"),
        ({"objective": Pull()}, "closed form"),
        ({"labels": OneHotLearned()}, "goes by classes alone"),
        ({"steps_per_network": 0}, "at least 1"),
        ({"parameterization": replace(HalfFrozen()), "clamp": True, "labels": OneHotLearned()}, "classes alone"),
    ],
)
def test_impossible_combinations_are_refused_with_the_reason(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        replace(dm(), **changes)


def test_a_budget_can_count_processor_time() -> None:
    synthetic = dm(architecture=ARCHITECTURE, real_batch_per_class=4).distil(
        blobs(), 1, seed=0, budget=Budget(seconds=0.3, clock="cpu")
    )
    assert 0.3 <= synthetic.provenance["seconds"] < 3
