"""What every parameterization promises, and what each makes of its start."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from builders import blobs
from fedcl_distill.context import SetupContext
from fedcl_distill.data import DataSpec
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.parameterizations import (
    PARAMETERIZATIONS,
    Addressing,
    LowRank,
    Parameterization,
    Pixels,
    Shape,
    Tiles,
    build_parameterization,
    stored_settings,
)
from fedcl_distill.parameterizations.base import enlarge, enlarging, shrink
from fedcl_distill.registry import describe, to_text
from fedcl_distill.synthetic import SyntheticSet, decode, encode, encoded_bytes, payload_bytes
from synthetic_builders import make_set

KINDS: tuple[Parameterization, ...] = (
    Pixels(),
    Tiles(),
    Tiles(3),
    Addressing(),
    Addressing(scale=1),
    Addressing(bases=2),
    LowRank(),
    LowRank(2),
)
PROBLEM = SetupContext(blobs(), 0, torch.device("cpu"))
COUNTS = (2, 0, 3)


def draw(how: Parameterization, counts: tuple[int, ...], shape: Shape, seed: int = 0) -> Tensor:
    samples = sum(how.decoded_counts(counts, shape))
    return torch.randn(samples, *shape, generator=torch.Generator().manual_seed(seed))


def stored_shapes(arrays: dict[str, Tensor]) -> dict[str, Shape]:
    return {name: tuple(array.shape) for name, array in arrays.items()}


@pytest.mark.parametrize("how", KINDS, ids=str)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_no_more_values_are_stored_than_by_as_many_pixels_and_shapes_agree(
    how: Parameterization, data: st.DataObject
) -> None:
    shape = tuple(data.draw(st.integers(1, high)) for high in (3, 12, 12))
    counts = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=6).filter(any))
    try:
        decoded = how.decoded_counts(counts, shape)
    except SettingsError:
        return
    shapes = how.shapes(counts, shape)
    assert sum(map(math.prod, shapes.values())) <= sum(counts) * math.prod(shape)
    assert all((before == 0) == (after == 0) for before, after in zip(counts, decoded, strict=True))
    assert how.decoded_shape(shapes) == (sum(decoded), *shape)
    arrays = how.start(torch.randn(sum(decoded), *shape), counts, PROBLEM)
    assert stored_shapes(arrays) == shapes
    assert tuple(how.decode(arrays).shape) == (sum(decoded), *shape)
    assert all(array.dtype == torch.float32 and array.isfinite().all() for array in arrays.values())


@pytest.mark.parametrize("how", KINDS, ids=str)
def test_settings_rebuild_the_parameterization(how: Parameterization) -> None:
    assert PARAMETERIZATIONS.build(describe(how)) == how
    assert PARAMETERIZATIONS.build(to_text(describe(how))) == how


@pytest.mark.parametrize("how", KINDS, ids=str)
def test_the_same_samples_start_alike(how: Parameterization) -> None:
    samples = draw(how, COUNTS, (3, 8, 12))
    first, second = (how.start(samples, COUNTS, PROBLEM) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("how", KINDS, ids=str)
def test_decoding_is_differentiated_correctly(how: Parameterization) -> None:
    arrays = how.start(draw(how, (1, 1), (2, 4, 6)).double(), (1, 1), PROBLEM)
    names, values = zip(*((name, array.double().requires_grad_()) for name, array in arrays.items()), strict=True)

    def decoded(*values: Tensor) -> Tensor:
        return how.decode(dict(zip(names, values, strict=True)))

    assert torch.autograd.gradcheck(decoded, values, fast_mode=True)


@pytest.mark.parametrize("bits", [32, 16, 8, 4])
@pytest.mark.parametrize("how", KINDS, ids=str)
def test_sets_of_every_kind_travel_in_exactly_the_announced_bytes(how: Parameterization, bits: int) -> None:
    shape = (3, 8, 12)
    arrays = how.start(draw(how, COUNTS, shape), COUNTS, PROBLEM)
    labels = torch.arange(3).repeat_interleave(torch.tensor(how.decoded_counts(COUNTS, shape)))
    sent = SyntheticSet(arrays, how, labels, make_set((1, *shape), classes=3).spec)
    payload = encode(sent, bits, coding="safetensors")
    received = decode(payload)
    assert len(payload) == encoded_bytes(sent, bits, coding="safetensors")
    assert payload_bytes(sent, bits, coding="safetensors").arrays == sum(
        (array.numel() * bits + 7) // 8 for array in arrays.values()
    )
    assert received.parameterization == how
    assert torch.equal(received.labels, labels)
    assert encode(received, bits, coding="safetensors") == payload
    if bits == 32:
        assert torch.equal(received.inputs(), sent.inputs())
    blank = replace(sent, arrays={name: torch.zeros(size) for name, size in how.shapes(COUNTS, shape).items()})
    assert encoded_bytes(blank, bits, coding="safetensors") == len(payload)


@pytest.mark.parametrize("how", [Tiles(), LowRank()], ids=str)
def test_feature_vectors_are_refused_where_they_have_no_sides(how: Parameterization) -> None:
    with pytest.raises(SettingsError, match="feature vectors"):
        how.decoded_counts([1], (20,))


@pytest.mark.parametrize(("small", "large"), [(4, 8), (5, 9), (1, 3), (7, 7), (3, 16)])
def test_enlarging_is_the_interpolation_of_torch_and_shrinking_its_least_squares_inverse(
    small: int, large: int
) -> None:
    image = torch.randn(2, 3, small, small, dtype=torch.float64)
    big = F.interpolate(image, size=(large, large), mode="bilinear")
    matrix = enlarging(small, large)
    torch.testing.assert_close(matrix @ image @ matrix.T, big)
    torch.testing.assert_close(shrink(big, small, small), image)
    noisy = torch.randn_like(big)
    design = torch.kron(matrix, matrix)
    best = torch.linalg.lstsq(design, noisy.flatten(2).flatten(0, 1).T).solution.T
    torch.testing.assert_close(shrink(noisy, small, small).flatten(2).flatten(0, 1), best)


def test_each_tile_is_a_sample_and_tiles_of_an_image_follow_each_other() -> None:
    pixels = torch.randn(2, 1, 6, 10)
    decoded = Tiles(2).decode({"pixels": pixels})
    for image in range(2):
        for row in range(2):
            for column in range(2):
                tile = pixels[image : image + 1, :, 3 * row : 3 * row + 3, 5 * column : 5 * column + 5]
                expected = F.interpolate(tile, size=(6, 10), mode="bilinear")
                torch.testing.assert_close(decoded[4 * image + 2 * row + column], expected[0])


def test_tiles_that_do_not_divide_an_image_use_every_pixel_once() -> None:
    pixels = torch.randn(1, 1, 7, 5, requires_grad=True)
    Tiles(3).decode({"pixels": pixels}).square().sum().backward()
    assert pixels.grad is not None
    assert (pixels.grad != 0).all()
    areas = [(rows.stop - rows.start) * (cols.stop - cols.start) for rows, cols in Tiles(3)._grid((7, 5))]
    assert sum(areas) == 35


def test_tiles_start_from_the_best_smaller_images() -> None:
    samples = draw(Tiles(), COUNTS, (3, 8, 12))
    decoded = Tiles().decode(Tiles().start(samples, COUNTS, PROBLEM))
    best = enlarge(shrink(samples, 4, 6), 8, 12)
    torch.testing.assert_close(decoded, best)


def test_addressing_starts_from_the_best_approximation_there_is() -> None:
    how, shape, counts = Addressing(bases=3), (2, 6, 4), (3, 2)
    samples = draw(how, counts, shape)
    decoded = how.decode(how.start(samples, counts, PROBLEM))
    # Enlarged images are a subspace: project, then cut the rank of what is left.
    grid = torch.kron(torch.eye(2, dtype=torch.float64), torch.kron(enlarging(3, 6), enlarging(2, 4)))
    inside = samples.flatten(1).double() @ grid @ torch.linalg.pinv(grid)
    left, values, right = torch.linalg.svd(inside, full_matrices=False)
    best = (left[:, :3] * values[:3]) @ right[:3]
    torch.testing.assert_close(decoded.flatten(1).double(), best, atol=1e-5, rtol=1e-4)


def test_feature_vectors_are_addressed_at_full_length() -> None:
    how, counts = Addressing(bases=4), (6, 6)
    samples = draw(how, counts, (12,))
    decoded = how.decode(how.start(samples, counts, PROBLEM))
    left, values, right = torch.linalg.svd(samples, full_matrices=False)
    torch.testing.assert_close(decoded, (left[:, :4] * values[:4]) @ right[:4], atol=1e-5, rtol=1e-4)


def test_bases_that_repeated_samples_leave_over_can_still_be_learned() -> None:
    how, counts = Addressing(bases=4), (4, 4)
    repeated = draw(how, (1, 1), (1, 8, 8))[:2].repeat_interleave(torch.tensor([30, 30]), dim=0)
    repeated = repeated[: sum(how.decoded_counts(counts, (1, 8, 8)))]
    arrays = how.start(repeated, counts, PROBLEM)
    arrays["bases"].requires_grad_()
    how.decode(arrays).square().sum().backward()
    assert how.decode(arrays).isfinite().all()
    assert arrays["bases"].grad is not None
    assert (arrays["bases"].grad.flatten(1).norm(dim=1) > 1e-6).all()


@pytest.mark.parametrize(
    ("counts", "shape", "bases", "addresses"),
    [
        ((1,) * 10, (3, 32, 32), 16, 115),  # the paper's for CIFAR-10: (30720 − 16·768) / 160 addresses a class
        ((10,) * 10, (3, 32, 32), 160, 115),
        ((1,) * 10, (1, 28, 28), 16, 29),
        ((1,) * 10, (1, 8, 8), 8, 6),
        ((1,) * 100, (3, 32, 32), 160, 11),
    ],
)
def test_the_usual_number_of_bases_is_the_papers(
    counts: tuple[int, ...], shape: Shape, bases: int, addresses: int
) -> None:
    assert Addressing().shapes(counts, shape)["bases"][0] == bases
    assert Addressing().decoded_counts(counts, shape) == [addresses] * len(counts)


def test_unequal_classes_share_addresses_in_proportion() -> None:
    small, none, large = Addressing().decoded_counts([1, 0, 9], (3, 32, 32))
    assert none == 0
    assert large == pytest.approx(9 * small, abs=9)


def test_low_rank_starts_from_the_truncated_singular_value_decomposition() -> None:
    how = LowRank(2)
    samples = draw(how, COUNTS, (3, 8, 12))
    decoded = how.decode(how.start(samples, COUNTS, PROBLEM))
    discarded = torch.linalg.svdvals(samples.double())[..., 2:].square().sum()
    assert float((decoded - samples).double().square().sum()) == pytest.approx(float(discarded), rel=1e-4)


@pytest.mark.parametrize(
    ("how", "counts", "shape", "why"),
    [
        (Tiles(5), [1], (1, 4, 9), "no 5 tiles"),
        (Addressing(), [1], (1, 7, 8), "does not divide"),
        (Addressing(scale=1), [1], (1, 8, 8), "does not hold"),
        (Addressing(bases=40), [1], (3, 8, 8), "does not hold"),
        (Addressing(bases=17), [9], (1, 8, 8), "span no more"),
        (LowRank(5), [1], (1, 8, 8), "at most 4"),
    ],
)
def test_what_cannot_be_stored_so_is_refused_with_a_reason(
    how: Parameterization, counts: list[int], shape: Shape, why: str
) -> None:
    with pytest.raises(SettingsError, match=why):
        how.decoded_counts(counts, shape)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("tiles", {"factor": 0}),
        ("tiles", {"factor": -2}),
        ("tiles", {"factor": True}),
        ("tiles", {"factor": 2.0}),
        ("tiles", {"factor": 10**9}),
        ("tiles", {"factor": "2"}),
        ("addressing", {"scale": 0}),
        ("addressing", {"scale": 10**6}),
        ("addressing", {"bases": 0}),
        ("addressing", {"bases": True}),
        ("addressing", {"bases": 2.5}),
        ("low-rank", {"rank": 0}),
        ("low-rank", {"rank": False}),
        ("low-rank", {"rank": 10**9}),
        ("low-rank", {"unknown": 1}),
        ("low-rank", {"": 1}),
        ("low-rank", {"rank": 10**400}),
    ],
)
def test_hostile_settings_are_refused(name: str, bad: dict[str, int]) -> None:
    with pytest.raises(PayloadError):
        build_parameterization(name, bad)


@pytest.mark.parametrize(
    ("how", "shapes"),
    [
        (Tiles(), {"pixels": (4, 1, 8)}),
        (Tiles(), {"pixels": (4, 1, 1, 8)}),
        (Tiles(), {"pixels": (0, 0, 0, 0)}),
        (Tiles(), {"pixels": (1, 1, 8, 8), "more": (1,)}),
        (Addressing(), {"bases": (2, 1, 4, 4)}),
        (Addressing(), {"bases": (2, 1, 4, 4), "addresses": (10, 3)}),
        (Addressing(), {"bases": (0, 1, 4, 4), "addresses": (10, 0)}),
        (Addressing(), {"bases": (2, 1, 4), "addresses": (10, 2)}),
        (Addressing(), {"bases": (2, 1, 4, 4), "addresses": (10, 2, 1)}),
        (Addressing(bases=3), {"bases": (2, 1, 4, 4), "addresses": (10, 2)}),
        (LowRank(), {"left": (2, 1, 8, 2)}),
        (LowRank(), {"left": (2, 1, 8, 2), "right": (2, 1, 3, 8)}),
        (LowRank(), {"left": (2, 1, 8, 2), "right": (3, 1, 2, 8)}),
        (LowRank(), {"left": (2, 1, 8, 0), "right": (2, 1, 0, 8)}),
        (LowRank(3), {"left": (2, 1, 8, 2), "right": (2, 1, 2, 8)}),
    ],
)
def test_arrays_that_do_not_fit_are_refused(how: Parameterization, shapes: dict[str, Shape]) -> None:
    with pytest.raises(PayloadError):
        how.decoded_shape(shapes)


@pytest.mark.parametrize(
    ("how", "shapes"),
    [
        (Tiles(16), {"pixels": (1, 1, 16, 10**6)}),
        (Addressing(scale=16), {"bases": (1, 1, 1000, 1000), "addresses": (10**4, 1)}),
        (LowRank(), {"left": (1, 1, 10**6, 1), "right": (1, 1, 1, 10**6)}),
    ],
)
def test_few_values_that_would_decode_to_very_many_are_refused_by_the_decoder(
    how: Parameterization, shapes: dict[str, Shape]
) -> None:
    decoded = how.decoded_shape(shapes)
    few = SyntheticSet(
        {name: torch.zeros(shape) for name, shape in shapes.items()},
        how,
        torch.zeros(decoded[0], dtype=torch.int64),
        DataSpec(decoded[1:], ("a",), make_set((1, 1, 2, 2)).normalisation),
    )
    with pytest.raises(PayloadError, match="at most"):
        decode(encode(few, 8))


def test_defaults_are_part_of_the_format_and_cost_no_bytes() -> None:
    stored = {str(how): stored_settings(how) for how in KINDS}
    assert stored == {
        str(Pixels()): {},
        str(Tiles()): {},
        str(Tiles(3)): {"factor": 3},
        str(Addressing()): {},
        str(Addressing(scale=1)): {"scale": 1},
        str(Addressing(bases=2)): {"bases": 2},
        str(LowRank()): {},
        str(LowRank(2)): {"rank": 2},
    }
    for how in KINDS:
        assert build_parameterization(how.name, stored_settings(how)) == how
    # What readers of earlier files, with or without settings, rely on: a change of a default needs a new format.
    assert build_parameterization("tiles", {}) == build_parameterization("tiles", {"factor": 2})
    assert build_parameterization("addressing", {}) == build_parameterization("addressing", {"bases": None, "scale": 2})
    assert build_parameterization("low-rank", {}) == build_parameterization("low-rank", {"rank": None})
