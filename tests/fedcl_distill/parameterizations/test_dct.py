"""Truth: scipy's cosine transform; whole numbers; what JPEG's rule of thumb says of smooth images."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import Tensor

from builders import blobs
from fedcl_distill.data import Splits
from fedcl_distill.engine import Budget, ByteBudget
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.parameterizations import DCT
from fedcl_distill.synthetic import decode, encode, encoded_bytes


def images(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Smooth ones."""
    small = torch.randn(shape[0], shape[1], 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(small, size=shape[2:], mode="bilinear", align_corners=False)


def test_coefficients_are_those_of_scipy_in_order_of_frequency() -> None:
    samples = images((3, 1, 8, 8))
    arrays = DCT(frequencies=64, step=0.5).transform(samples)
    exact = dctn(samples[:, 0].double().numpy(), axes=(1, 2), norm="ortho") / 0.5
    found = arrays["coefficients"][:, 0].numpy()
    order = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1)]
    np.testing.assert_allclose(found[:, :8], np.stack([exact[:, u, v] for u, v in order], axis=1), atol=0.02)


@pytest.mark.parametrize(
    ("shape", "how"),
    [
        ((4, 1, 28, 28), DCT(784, 0.01)),
        ((4, 3, 12, 9), DCT(108, 0.01)),
        ((4, 2, 5, 7), DCT(35, 0.01)),
        ((4, 1, 11, 20), DCT(64, 0.01, 8)),
        ((4, 3, 16, 8), DCT(64, 0.01, 8)),
    ],
)
def test_enough_frequencies_and_small_steps_give_the_samples_back(shape: tuple[int, ...], how: DCT) -> None:
    samples = images(shape)
    arrays = how.transform(samples)
    assert how.decoded_shape({name: tuple(array.shape) for name, array in arrays.items()}) == shape
    grey = samples if shape[1] != 3 else samples.mean(dim=1, keepdim=True).expand_as(samples)  # chroma is half as fine
    again = how.decode(how.transform(grey))
    assert float((again - grey).abs().max()) < 0.04


def test_chroma_takes_half_the_resolution() -> None:
    how = DCT(64)
    assert how.shapes([1], (3, 32, 32))["coefficients"][1:] == (1, 64 + 2 * 16)
    assert how.decoded_counts([2, 0], (3, 32, 32)) == [2 * (3072 // 96), 0]


@pytest.mark.parametrize("how", [DCT(36, 0.5), DCT(20, 0.3, 8)])
def test_whole_numbers_decode_to_the_same_samples_to_the_last_bit(how: DCT) -> None:
    arrays = how.transform(images((6, 3, 24, 16)))
    whole = how.settled(arrays)
    assert torch.equal(whole["coefficients"], whole["coefficients"].round())
    decoded = how.decode(arrays)
    assert torch.equal(how.decode(whole), decoded)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert torch.equal(how.decode({**whole, "coefficients": whole["coefficients"][order]}), decoded[order])


def test_decoding_is_that_of_every_machine() -> None:
    how = DCT(20, 0.375, 8)
    codes = torch.arange(2 * 4 * 30).view(2, 4, 30) * 7 % 23 - 11.0
    decoded = how.decode({"coefficients": codes, "canvas": torch.zeros(0, 3, 16, 16)})
    assert hashlib.sha256(decoded.numpy().tobytes()).hexdigest()[:16] == "ceb1f9f67f52a2d5"


def test_gradients_are_those_of_the_transform_without_rounding() -> None:
    how = DCT(30, 0.5)
    arrays = how.transform(images((2, 1, 12, 12)))
    values = arrays["coefficients"].clone().requires_grad_()
    weights = images((2, 1, 12, 12), seed=1)
    (how.decode({**arrays, "coefficients": values}) * weights).sum().backward()
    expected = how.transform(weights)["coefficients"] * how.step**2  # of an orthonormal map, its own transpose
    assert values.grad is not None
    torch.testing.assert_close(values.grad, expected, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize(
    "shapes",
    [
        {"coefficients": (2, 1, 36)},
        {"coefficients": (2, 1, 36), "canvas": (1, 1, 28, 28)},
        {"coefficients": (2, 1, 35), "canvas": (0, 1, 28, 28)},
        {"coefficients": (2, 2, 36), "canvas": (0, 1, 28, 28)},
        {"coefficients": (2, 1, 36), "canvas": (0, 1, 28, 2**20)},
        {"coefficients": (2, 1, 36), "canvas": (0, 0, 28, 28)},
        {"coefficients": (2, 1, 36), "canvas": (0, 28, 28)},
    ],
)
def test_arrays_that_do_not_fit_are_refused(shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(PayloadError, match=r"cosines need|canvas|coefficients of shape"):
        DCT().decoded_shape(shapes)


def test_feature_vectors_and_images_with_too_few_pixels_are_refused() -> None:
    with pytest.raises(SettingsError, match="cosines are of images"):
        DCT().decoded_counts([1], (5,))
    with pytest.raises(SettingsError, match="compressed: only images"):
        build_method("compressed").distil(blobs((5,)), 1)


def test_methods_distil_coefficients_whose_payload_decodes_to_the_same_samples() -> None:
    data = blobs((1, 8, 8), per_class=20)
    method = build_method("dm", parameterization="dct:frequencies=16,step=0.2", architecture="convnet:width=4,depth=1")
    made = method.distil(data, 1, seed=0, budget=Budget(steps=3))
    assert len(made) == 4 * data.num_classes
    received = decode(encode(made))
    assert torch.equal(received.inputs(), made.inputs())


@pytest.mark.parametrize("selection", ["random", "herding"])
def test_compressed_real_samples_fill_a_budget_and_never_exceed_it(selection: str, digits: Splits) -> None:
    method = build_method("compressed", selection=selection)
    for room in (300, 900):
        made = method.distil(digits.train, ByteBudget(room), seed=0)
        payload = encode(made, provenance=False)
        assert 0.9 * room < len(payload) <= room
        assert decode(payload) == made
        assert made.provenance["holds_real_samples"] is True
        counts = made.class_counts
        assert int(counts.max()) - int(counts.min()) <= 1
    plain = build_method(selection).distil(digits.train, ByteBudget(900), seed=0)
    assert len(made) > 1.5 * len(plain)


def test_compressed_images_look_like_those_that_were_chosen(digits: Splits) -> None:
    made = build_method("compressed", bytes_per_image=40.0).distil(digits.train, 10, seed=0)
    assert encoded_bytes(made, provenance=False) <= encoded_bytes(
        build_method("random").distil(digits.train, 10, seed=0), provenance=False, coding="fixed"
    )
    pixels = digits.train.inputs()
    distances = (made.inputs()[:, None] - pixels[None]).square().flatten(2).mean(dim=2).min(dim=1).values
    assert float(distances.mean()) < 0.1 * float((pixels[:100, None] - pixels[None, 100:200]).square().mean())


def test_a_size_in_samples_stands_for_their_bytes_class_by_class(digits: Splits) -> None:
    made = build_method("compressed").distil(digits.train, [4, 0, 2, *[0] * 7], seed=0)
    counts = made.class_counts.tolist()
    assert counts[1] == 0
    assert counts[0] >= counts[2] > 0
    with pytest.raises(SettingsError, match="bytes hold no compressed image"):
        build_method("compressed").distil(digits.train, ByteBudget(20))
