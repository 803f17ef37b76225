"""Synthetic sets to bytes: the same format on the wire and in a file."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fedcl_distill.errors import DataError
from fedcl_distill.parameterizations import stored_settings
from fedcl_distill.synthetic.container import Spec, View, container_header, write_container
from fedcl_distill.synthetic.header import HARD, SOFT, Header
from fedcl_distill.synthetic.layout import LABELS, STORED_DTYPES, label_bits, label_dtype
from fedcl_distill.synthetic.packing import pack, packed_bytes
from fedcl_distill.synthetic.quantise import Floats, Range, check_bits, error_bound, is_packed, quantise
from fedcl_distill.synthetic.set import SyntheticSet

_ARRAY_ENTRY_BYTES = 64  # about what the container's header says about an array


@dataclass(frozen=True)
class PayloadBytes:
    """Where a payload's bytes go: ``arrays``, ``labels`` (0 if the header counts them) and ``header``."""

    arrays: int
    labels: int
    header: int

    @property
    def total(self) -> int:
        return self.arrays + self.labels + self.header


def encode(synthetic: SyntheticSet, bits: int = 8, *, provenance: bool = True) -> bytes:
    """The set as bytes. Equal sets give equal bytes; encoding what was decoded gives the same bytes again.

    Args:
        synthetic: what to encode. Its arrays may live on any device.
        bits: 32 keeps every float32 as it is; 16, 8, 4 and 2 store each value as the nearest of ``2**bits`` even
            steps over its array's [min, max] (see :func:`quantisation_error`). A constant array stays exact.
            Soft labels get ``max(bits, 8)`` bits. Hard labels are exact: the smallest unsigned integers that
            fit the classes or, if samples are ordered by class and it is shorter, a count for each class.
        provenance: whether ``synthetic.provenance`` travels too.

    Raises:
        SettingsError: ``bits`` is none of 2, 4, 8, 16, 32.
        PayloadError: the provenance, class names or settings cannot be written as JSON.
        DataError: a stored array is called ``labels``, which is taken.
    """
    values, header = _plan(synthetic, bits, provenance)
    return write_container({name: _store(name, values[name], header) for name in values}, header.to_text())


def encoded_bytes(synthetic: SyntheticSet, bits: int = 8, *, provenance: bool = True) -> int:
    """Exact size of :func:`encode`'s result, in bytes.

    Nothing is quantised for it, and stored values do not matter: a set of zeros answers for one that is still
    to be distilled. For samples ordered by class, each added one makes the payload larger or leaves it in the
    same step of 8 bytes. Beside arrays and labels there is a header of roughly 300 to 450 bytes, plus the
    provenance and class names other than "0", "1", ….
    """
    return payload_bytes(synthetic, bits, provenance=provenance).total


def payload_bytes(synthetic: SyntheticSet, bits: int = 8, *, provenance: bool = True) -> PayloadBytes:
    """:func:`encoded_bytes`, split into arrays, labels and header."""
    values, header = _plan(synthetic, bits, provenance)
    specs = {name: _spec(name, values[name], header) for name in values}
    labels = specs[LABELS].nbytes if LABELS in specs else 0
    return PayloadBytes(
        arrays=sum(spec.nbytes for spec in specs.values()) - labels,
        labels=labels,
        header=len(container_header(specs, header.to_text())),
    )


def quantisation_error(synthetic: SyntheticSet, bits: int) -> dict[str, float]:
    """Largest absolute change of a stored value by :func:`encode`, for each array and for soft ``labels``.

    In the unit of stored values: ``(max - min) / (2 * (2**bits - 1))`` plus float32 rounding; 0 at 32 bits.

    Raises:
        SettingsError: ``bits`` is none of 2, 4, 8, 16, 32.
    """
    check_bits(bits)
    errors = {name: error_bound(Range.of(_to_numpy(a)), bits) for name, a in synthetic.arrays.items()}
    if synthetic.labels.ndim == 2:
        errors[LABELS] = error_bound(Range.of(_to_numpy(synthetic.labels)), label_bits(bits))
    return errors


def _plan(synthetic: SyntheticSet, bits: int, provenance: bool) -> tuple[dict[str, View], Header]:
    """What is to be stored, by name and not yet quantised, and the header that tells how."""
    check_bits(bits)
    if LABELS in synthetic.arrays:
        raise DataError(f"synthetic set: no stored array may be called {LABELS!r}")
    arrays = {name: _to_numpy(array) for name, array in synthetic.arrays.items()}
    labels = _how_labels_travel(synthetic)
    values: dict[str, View] = dict(arrays)
    if labels == SOFT:
        values[LABELS] = _to_numpy(synthetic.labels)
    header = Header(
        bits=bits,
        parameterization=synthetic.parameterization.name,
        settings=stored_settings(synthetic.parameterization),
        class_names=synthetic.class_names,
        labels=labels,
        mean=synthetic.normalisation.mean,
        std=synthetic.normalisation.std,
        value_range=synthetic.value_range,
        ranges={name: Range.of(array) for name, array in values.items()} if bits < 32 else {},
        shapes={name: array.shape for name, array in arrays.items()} if is_packed(bits) else {},
        provenance=synthetic.provenance if provenance else {},
    )
    if labels == HARD:
        values[LABELS] = synthetic.labels.cpu().numpy().astype(label_dtype(synthetic.num_classes))
    return values, header


def _how_labels_travel(synthetic: SyntheticSet) -> str | tuple[int, ...]:
    labels = synthetic.labels
    if labels.ndim == 2:
        return SOFT
    in_order = bool((labels[1:] >= labels[:-1]).all())
    # A count takes two bytes of the header, an array one byte a label and its entry in the container.
    if in_order and 2 * synthetic.num_classes <= len(labels) + _ARRAY_ENTRY_BYTES:
        return tuple(synthetic.class_counts.tolist())
    return HARD


def _depth(name: str, header: Header) -> int:
    """Bits of a value of the array ``name``, hard labels excepted."""
    return label_bits(header.bits) if name == LABELS else header.bits


def _spec(name: str, values: View, header: Header) -> Spec:
    """What :func:`_store` will give, without the work."""
    if name == LABELS and header.labels == HARD:
        return Spec(values.dtype, values.shape)
    bits = _depth(name, header)
    return Spec(STORED_DTYPES[bits], (packed_bytes(values.size, bits),) if is_packed(bits) else values.shape)


def _store(name: str, values: View, header: Header) -> View:
    """The array that goes into the container for ``values``."""
    spec = _spec(name, values, header)
    if name in header.ranges:
        bits = _depth(name, header)
        codes = quantise(values, header.ranges[name], bits)
        values = pack(codes, bits) if is_packed(bits) else codes
    return values.astype(spec.dtype, copy=False)


def _to_numpy(array: Tensor) -> Floats:
    values: Floats = array.detach().cpu().numpy()
    return values
