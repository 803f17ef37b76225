"""IT-GAN: codes alone are learned, and the loss of distribution matching falls."""

from __future__ import annotations

import pytest
import torch

from builders import blobs
from fedcl_distill.engine import Adam, Budget, Callback, Engine
from fedcl_distill.engine.loop import Run
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods.distribution import it_gan
from fedcl_distill.objectives import DistributionMatching, WithPairs
from fedcl_distill.parameterizations import GeneratorLatents
from fedcl_distill.synthetic import decode, encode

GENERATOR = GeneratorLatents(latent=8, embedding=4, width=8, generator_steps=20, inversion_steps=5)


class Losses(Callback):
    def __init__(self) -> None:
        self.all: list[float] = []

    def on_step(self, run: Run) -> None:
        self.all.append(run.state.losses[-1])


def quick(generator: GeneratorLatents = GENERATOR, learning_rate: float = 0.1) -> Engine:
    return it_gan(
        architecture="convnet:width=8,depth=2",
        generator=generator,
        augmentation="none",
        real_batch_per_class=20,
        learning_rate=learning_rate,
    )


def test_it_is_distribution_matching_of_codes() -> None:
    engine = it_gan()
    assert engine.objective == WithPairs(DistributionMatching(256), 0.1)
    assert it_gan(pair_weight=0).objective == DistributionMatching(256)
    assert engine.parameterization == GeneratorLatents()
    assert isinstance(engine.optimiser, Adam)
    assert engine.settings()["init"] == "random"


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 12)])
def test_codes_learn_and_weights_stay(shape: tuple[int, ...]) -> None:
    data, moving, resting = blobs(shape), Losses(), Losses()
    end = quick().distil(data, 2, seed=0, budget=Budget(steps=24), callbacks=[moving])
    start = quick(learning_rate=1e-12).distil(data, 2, seed=0, budget=Budget(steps=24), callbacks=[resting])
    assert not torch.equal(start.arrays["codes"], end.arrays["codes"])
    assert all(torch.equal(start.arrays[name], end.arrays[name]) for name in start.arrays if name != "codes")
    assert sum(moving.all[12:]) < 0.9 * sum(resting.all[12:])  # the same views
    assert torch.equal(decode(encode(end, 32)).inputs(), end.inputs())


def test_more_samples_than_whole_images_and_absent_classes() -> None:
    full = blobs((1, 8, 8))
    data = full.subset(torch.cat([full.indices_of(0), full.indices_of(2)[:1]]))
    many = GeneratorLatents(8, 4, 8, samples_per_image=4, generator_steps=2, inversion_steps=2)
    out = quick(many).distil(data, 2, seed=0, budget=Budget(steps=2), absent_classes="skip")
    assert out.class_counts.tolist() == [8, 0, 4]


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: object) -> None:
    class Stop(Callback):
        def on_step(self, run: Run) -> None:
            if run.state.step == 3:
                raise KeyboardInterrupt

    data, checkpoint = blobs((1, 8, 8)), f"{tmp_path}/run"
    whole = quick().distil(data, 1, seed=0, budget=Budget(steps=6))
    quick().distil(data, 1, seed=0, budget=Budget(steps=6), checkpoint=checkpoint, callbacks=[Stop()])
    resumed = quick().distil(data, 1, seed=0, budget=Budget(steps=6), checkpoint=checkpoint)
    assert all(torch.equal(whole.arrays[name], resumed.arrays[name]) for name in whole.arrays)


def test_feature_vectors_are_refused() -> None:
    with pytest.raises(SettingsError, match="feature vectors"):
        quick().distil(blobs((6,)), 1, seed=0, budget=Budget(steps=1))
