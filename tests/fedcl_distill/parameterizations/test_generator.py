"""The generator: its promises as a parameterization, its training, and the inversion of real images."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from builders import blobs
from fedcl_distill.context import SetupContext
from fedcl_distill.data import DataSpec, LabelledData
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.generators import (
    Batches,
    Discriminator,
    Principal,
    generate,
    initial_weights,
    stage_sizes,
    weight_shapes,
)
from fedcl_distill.parameterizations import GeneratorLatents, Shape, build_parameterization
from fedcl_distill.synthetic import SyntheticSet, decode, encode, encoded_bytes, payload_bytes
from synthetic_builders import make_set

CPU = torch.device("cpu")
SMALL = GeneratorLatents(latent=6, embedding=3, width=8, generator_steps=3, inversion_steps=2)


def problem(data: LabelledData, seed: int = 0) -> SetupContext:
    return SetupContext(data, seed, CPU)


def started(how: GeneratorLatents, data: LabelledData, counts: list[int], seed: int = 0) -> dict[str, Tensor]:
    decoded = how.decoded_counts(counts, data.sample_shape)
    rows = [data.indices_of(label)[torch.arange(count) % 5] for label, count in enumerate(decoded)]
    return how.start(data.inputs(torch.cat(rows)), counts, problem(data, seed))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 12), (1, 28, 28), (2, 3, 20)])
@pytest.mark.parametrize("counts", [[2, 0, 3], [1, 1, 1]])
def test_shapes_are_as_announced_and_codes_take_no_more_than_pixels(shape: Shape, counts: list[int]) -> None:
    data = blobs(shape, per_class=5)
    arrays = started(SMALL, data, counts)
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    assert shapes == SMALL.shapes(counts, shape)
    assert set(arrays) - SMALL.frozen == {"codes"}
    assert arrays["codes"].numel() <= sum(counts) * math.prod(shape)
    assert tuple(SMALL.decode(arrays).shape) == SMALL.decoded_shape(shapes) == (sum(counts), *shape)
    assert all(array.dtype == torch.float32 and not array.requires_grad for array in arrays.values())


def test_the_same_seed_gives_the_same_generator_and_another_seed_another() -> None:
    data = blobs(per_class=5)
    first, again, other = (started(SMALL, data, [1, 1, 1], seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["dense"], other["dense"])


def test_starting_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    started(SMALL, blobs(per_class=5), [1, 1, 1])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_decoding_is_differentiated_correctly() -> None:
    weights = initial_weights(weight_shapes(4, 4, (2, 5, 6)), torch.Generator().manual_seed(0))
    weights = {name: weight.double() for name, weight in weights.items()}
    codes = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda codes: generate(weights, codes), codes, fast_mode=True)


def test_a_sample_depends_on_its_own_code_alone_however_many_are_decoded() -> None:
    weights = initial_weights(weight_shapes(4, 8, (1, 20, 20)), torch.Generator().manual_seed(0))
    weights = {name: weight.double() for name, weight in weights.items()}
    codes = torch.randn(300, 4, dtype=torch.float64)
    alone = torch.cat([generate(weights, code[None]) for code in codes[::50]])
    torch.testing.assert_close(generate(weights, codes)[::50], alone)
    assert generate(weights, codes[:0]).shape == (0, 1, 20, 20)


@pytest.mark.parametrize(("side", "sizes"), [(28, [4, 7, 14, 28]), (4, [4]), (5, [3, 5]), (32, [4, 8, 16, 32])])
def test_stages_double_up_to_the_size_of_a_sample(side: int, sizes: list[int]) -> None:
    assert stage_sizes(side, side) == [(size, size) for size in sizes]


@pytest.mark.parametrize("bits", [32, 16, 8, 4])
def test_sets_travel_with_their_generator_in_exactly_the_announced_bytes(bits: int) -> None:
    data = blobs((3, 7, 12), per_class=5)
    arrays = started(SMALL, data, [2, 0, 3])
    sent = SyntheticSet(arrays, SMALL, torch.tensor([0, 0, 2, 2, 2]), data.spec)
    payload = encode(sent, bits, coding="safetensors")
    received = decode(payload)
    assert len(payload) == encoded_bytes(sent, bits, coding="safetensors")
    assert payload_bytes(sent, bits, coding="safetensors").arrays == sum(
        (array.numel() * bits + 7) // 8 for array in arrays.values()
    )
    assert received.parameterization == SMALL
    assert encode(received, bits, coding="safetensors") == payload
    if bits == 32:
        assert torch.equal(received.inputs(), sent.inputs())


def test_training_teaches_the_generator_the_classes_and_inversion_comes_closer() -> None:
    data = blobs((1, 8, 8), per_class=20)
    images = data.inputs(torch.arange(0, 60, 4))
    errors = []
    for training, inversion in ((1, 0), (80, 0), (80, 40)):
        how = GeneratorLatents(width=16, generator_steps=training, inversion_steps=inversion)
        arrays = how.start(images, [5, 5, 5], problem(data))
        errors.append(float((how.decode(arrays) - images).square().mean()))
    assert errors[1] < 0.5 * errors[0]
    assert errors[2] < errors[1]


def test_preparation_ends_with_its_time_but_leaves_a_usable_generator() -> None:
    data = blobs(per_class=5)
    how = replace(SMALL, generator_steps=10**6, inversion_steps=10**5)
    hurried = SetupContext(data, 0, CPU, has_time=lambda: False)
    arrays = how.start(data.inputs(torch.tensor([0, 5, 10])), [1, 1, 1], hurried)
    assert how.decode(arrays).isfinite().all()


@pytest.mark.parametrize("per_class", [1, 7])
def test_classes_of_one_sample_and_absent_classes_can_be_learned_from(per_class: int) -> None:
    full = blobs((1, 8, 8), classes=4, per_class=7)
    rows = torch.cat([full.indices_of(0), full.indices_of(2)[:per_class], full.indices_of(3)[:1]])
    data = full.subset(rows)
    arrays = SMALL.start(data.inputs(torch.tensor([0, 7, len(data) - 1])), [1, 0, 1, 1], problem(data))
    assert all(array.isfinite().all() for array in arrays.values())


def test_batches_draw_every_present_class_evenly_however_rare() -> None:
    full = blobs((1, 4, 4), classes=3, per_class=400)
    data = full.subset(torch.cat([full.indices_of(0), full.indices_of(2)[:1]]))
    images, labels = Batches(data, 4000, CPU).draw(torch.Generator().manual_seed(0))
    counts = torch.bincount(labels, minlength=3)
    assert counts[1] == 0
    assert abs(int(counts[0]) - 2000) < 200
    assert torch.equal(images[labels == 2][0], data.inputs(torch.tensor([400]))[0])


def test_first_guesses_are_uncorrelated_within_classes_and_of_unit_variance() -> None:
    data = blobs((1, 8, 8), per_class=200)
    codes = Principal.of(data, 5, seed=0).codes(data.inputs(), data.labels)
    for label in range(3):
        assert codes[data.labels == label].mean(dim=0).abs().max() < 1e-4
    torch.testing.assert_close(codes.T @ codes / len(codes), torch.eye(5), atol=1e-3, rtol=0)


def test_lengths_beyond_the_rank_of_the_data_are_filled_with_zeros() -> None:
    data = blobs((1, 3, 3), classes=2, per_class=3)
    codes = Principal.of(data, 12, seed=0).codes(data.inputs(), data.labels)
    assert codes.isfinite().all()
    assert (codes[:, 4:] == 0).all()


def test_the_discriminator_depends_on_the_class_linearly_in_its_features() -> None:
    torch.manual_seed(0)
    network = Discriminator((1, 9, 12), classes=3, width=4).eval()
    images, labels = torch.randn(4, 1, 9, 12), torch.tensor([0, 1, 2, 0])
    features = network.features(images)
    by_hand = network.score(features)[:, 0] + torch.einsum("nf,nf->n", network.classes.weight[labels], features)
    torch.testing.assert_close(network(images, labels), by_hand)


@pytest.mark.parametrize(
    ("how", "shape", "why"),
    [
        (GeneratorLatents(), (20,), "feature vectors"),
        (GeneratorLatents(), (1, 8, 513), "at most 512"),
        (GeneratorLatents(samples_per_image=10), (1, 28, 28), "take more"),
        (GeneratorLatents(latent=64), (1, 8, 8), "take more"),
    ],
)
def test_what_cannot_be_stored_so_is_refused_with_a_reason(how: GeneratorLatents, shape: Shape, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        how.decoded_counts([1], shape)


def test_small_samples_get_shorter_codes() -> None:
    assert GeneratorLatents().shapes([1], (1, 8, 8))["codes"] == (1, 48)
    assert GeneratorLatents().shapes([1], (1, 28, 28))["codes"] == (1, 80)
    assert sum(math.prod(s) for n, s in GeneratorLatents().shapes([1], (1, 28, 28)).items() if n != "codes") == 58_592


@pytest.mark.parametrize(
    "bad",
    [{"latent": 0}, {"width": -1}, {"width": 10**6}, {"embedding": True}, {"samples_per_image": 0}, {"width": 2.0}],
)
def test_hostile_settings_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(PayloadError):
        build_parameterization("generator", bad)


@pytest.mark.parametrize(
    "change",
    [
        {"mean": (1, 10**5, 10**5)},
        {"mean": (0, 28, 28)},
        {"mean": (28, 28)},
        {"codes": (5, 79)},
        {"codes": (80,)},
        {"conv1": (32, 32, 5, 5)},
        {"output": (3, 16, 3, 3)},
        {"more": (1,)},
        {"dense": None},
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, Shape | None]) -> None:
    shapes = {**GeneratorLatents().shapes([5], (1, 28, 28)), **change}
    kept = {name: shape for name, shape in shapes.items() if shape is not None}
    with pytest.raises(PayloadError):
        GeneratorLatents().decoded_shape(kept)


def test_few_weights_that_would_decode_to_very_many_values_are_refused_by_the_decoder() -> None:
    how = GeneratorLatents(latent=1, embedding=1, width=1)
    shapes = {**how.shapes([1], (1, 512, 512)), "codes": (1000, 2)}
    many = SyntheticSet(
        {name: torch.zeros(shape) for name, shape in shapes.items()},
        how,
        torch.zeros(1000, dtype=torch.int64),
        DataSpec((1, 512, 512), ("a",), make_set((1, 1, 2, 2)).normalisation),
    )
    with pytest.raises(PayloadError, match="at most"):
        decode(encode(many, 8))
