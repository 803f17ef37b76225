"""The only thing that travels: a synthetic set, to a file, over the network, into a replay memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from fedcl_distill.data.labelled import LabelledData, same_tensors
from fedcl_distill.data.spec import DataSpec, Described
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.parameterizations import Parameterization, Pixels


@dataclass(frozen=True, eq=False, repr=False)
class SyntheticSet(Described):
    """A few synthetic (or selected) samples that stand for a data set.

    ``len(synthetic)`` counts decoded samples; ``synthetic[i]`` is ``(sample, label)`` as :meth:`dataset` has it, and
    iterating gives all of them. Equal sets hold the same arrays, labels, spec and parameterization, wherever they came
    from.

    Attributes:
        arrays: what is stored, float32, in the space of network inputs; its meaning belongs to
            ``parameterization``.
        parameterization: decodes ``arrays`` to samples.
        labels: int64 (n,) hard labels, or float32 (n, classes) probabilities, given or learned; one for each
            decoded sample.
        spec: of the real data that the set stands for (decoded samples may leave its ``value_range``: see
            ``samples``). Its fields are attributes here too (``synthetic.class_names``).
        provenance: where the set came from, as JSON values: method, settings, seed, counts, seconds, privacy
            spent.

    Raises:
        DataError: on construction, if labels or spec do not fit the samples or values are not finite.
    """

    arrays: Mapping[str, Tensor]
    parameterization: Parameterization
    labels: Tensor
    spec: DataSpec
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, array in self.arrays.items():
            if array.dtype != torch.float32:
                raise DataError(f"synthetic set: array {name!r} must be float32, got {array.dtype}")
            if not torch.isfinite(array).all():
                raise DataError(f"synthetic set: array {name!r} holds NaN or infinity")
        if self.sample_shape != tuple(self.spec.sample_shape):
            raise DataError(
                f"synthetic set: samples of shape {self.sample_shape}, its spec says {self.spec.sample_shape}"
            )
        self._check_labels()

    def _check_labels(self) -> None:
        count, classes = len(self), self.num_classes
        if self.labels.dtype == torch.int64 and self.labels.shape == (count,):
            if count and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < classes:
                raise DataError(f"synthetic set: labels outside [0, {classes - 1}]")
        elif self.labels.dtype == torch.float32 and self.labels.shape == (count, classes):
            if not torch.isfinite(self.labels).all():
                raise DataError("synthetic set: soft labels hold NaN or infinity")
        else:
            raise DataError(
                f"synthetic set: {count} samples of {classes} classes need int64 ({count},) or float32 "
                f"({count}, {classes}) labels, got {self.labels.dtype} {tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        """Number of decoded samples."""
        return self._decoded_shape[0]

    def __repr__(self) -> str:
        method = self.provenance.get("method", "union" if "union_of" in self.provenance else "set")
        counts = sorted(set(self.class_counts.tolist()))
        each = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        values = sum(array.numel() for array in self.arrays.values())
        what = f"{len(self)} samples of {self.num_classes} classes, {each} each"
        stored = f"{'×'.join(map(str, self.sample_shape))}, {self.parameterization.name}, {values:,} bytes at 8 bits"
        return f"SyntheticSet({method}: {what}, {stored} a value)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SyntheticSet):
            return NotImplemented
        return (
            self.spec == other.spec
            and self.parameterization == other.parameterization
            and set(self.arrays) == set(other.arrays)
            and same_tensors(self.labels, other.labels)
            and all(same_tensors(array, other.arrays[name]) for name, array in self.arrays.items())
        )

    __hash__ = None  # type: ignore[assignment]  # holds tensors, as a list holds items

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Sample ``index`` as a network reads it, and its label; each call decodes, so loop over :meth:`dataset`."""
        position = range(len(self))[index]
        return self.inputs()[position].detach(), self.labels[position].detach()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(zip(self.inputs().detach(), self.labels.detach(), strict=True))

    @property
    def _decoded_shape(self) -> tuple[int, ...]:
        return self.parameterization.decoded_shape({name: tuple(a.shape) for name, a in self.arrays.items()})

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one decoded sample: (channels, height, width) or (features,)."""
        return self._decoded_shape[1:]

    @property
    def classes(self) -> list[str]:
        """The names of classes, as torchvision's data sets call them."""
        return list(self.class_names)

    @property
    def hard_labels(self) -> Tensor:
        """int64 (n,): the labels, or the most probable class of soft ones."""
        return self.labels if self.labels.ndim == 1 else self.labels.argmax(dim=1)

    @property
    def class_counts(self) -> Tensor:
        """int64 (classes,): decoded samples of each class."""
        return torch.bincount(self.hard_labels, minlength=self.num_classes)

    def inputs(self) -> Tensor:
        """float32 (n, …): decoded samples, normalised, ready for a network."""
        return self.parameterization.decode(self.arrays)

    def samples(self) -> Tensor:
        """float32 (n, …): decoded samples in unit values; an unclamped method may leave ``value_range``."""
        return self.normalisation.invert(self.inputs())

    def dataset(
        self, *, normalised: bool | None = None, transform: Callable[[Tensor], Any] | None = None
    ) -> TensorDataset | TransformedSamples:
        """Decoded samples with their labels, detached, for any ``DataLoader``.

        Args:
            normalised: samples as the networks here read them: float32, normalised by the set's own
                ``normalisation``. Your network reads them so if it was trained on data normalised alike; False gives
                unit values (pixels in [0, 1], raw features). By default they are normalised unless there is a
                ``transform``.
            transform: called on each sample whenever it is read: what your own data go through after ``ToTensor``, such
                as ``Normalize((0.5,), (0.5,))`` or a random augmentation. It gets unit values, those that leave
                ``value_range`` included.

        Returns:
            Items (sample, label): label int64 () or, if labels are soft, float32 (classes,).

        Raises:
            SettingsError: a transform of normalised samples is asked for, which would normalise them twice.

        Example:
            synthetic.dataset(transform=torchvision.transforms.Normalize((0.5,), (0.5,)))
        """
        if transform is not None:
            if normalised:
                raise SettingsError("dataset: a transform gets unit values; give normalised or transform, not both")
            return TransformedSamples(self.samples().detach(), self.labels.detach(), transform)
        samples = self.samples() if normalised is False else self.inputs()
        return TensorDataset(samples.detach(), self.labels.detach())

    def to(self, device: str | torch.device) -> SyntheticSet:
        """The set with its arrays and labels on ``device``."""
        arrays = {name: array.to(device) for name, array in self.arrays.items()}
        return replace(self, arrays=arrays, labels=self.labels.to(device))

    def subset(self, indices: Tensor) -> SyntheticSet:
        """The chosen decoded samples (int64 (k,)), stored as pixels."""
        return replace(
            self,
            arrays={"pixels": self.inputs()[indices]},
            parameterization=Pixels(),
            labels=self.labels[indices],
        )

    def with_spec(self, **changes: Any) -> SyntheticSet:
        """The same arrays under a spec with these fields changed, such as ``value_range`` or ``allow_hflip``."""
        return replace(self, spec=replace(self.spec, **changes))

    @classmethod
    def of_real(cls, data: LabelledData, provenance: Mapping[str, Any] | None = None) -> SyntheticSet:
        """The samples of ``data`` themselves, stored as pixels: what a core set or an exemplar memory holds."""
        return cls(
            arrays={"pixels": data.inputs()},
            parameterization=Pixels(),
            labels=data.labels,
            spec=data.spec,
            provenance=dict(provenance or {}),
        )

    def as_labelled_data(self, name: str = "synthetic") -> LabelledData:
        """The decoded samples as float data with hard labels, for anything that takes real data."""
        samples = self.samples()
        low, high = self.value_range
        if len(samples):
            low, high = min(low, float(samples.min())), max(high, float(samples.max()))
        return LabelledData(samples, self.hard_labels, replace(self.spec, value_range=(low, high)), name)


class TransformedSamples(Dataset[tuple[Any, Tensor]]):
    """Samples that go through a transform whenever they are read.

    Attributes:
        samples: float32 (n, …), unit values.
        labels: int64 (n,) or float32 (n, classes).
        transform: gets one sample.
    """

    def __init__(self, samples: Tensor, labels: Tensor, transform: Callable[[Tensor], Any]) -> None:
        self.samples, self.labels, self.transform = samples, labels, transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, Tensor]:
        return self.transform(self.samples[index].clone()), self.labels[index]


def union(sets: Sequence[SyntheticSet], provenance: Mapping[str, Any] | None = None) -> SyntheticSet:
    """All decoded samples of ``sets`` in one set, in the order given, stored as pixels.

    Hard labels become one-hot where another set has soft ones. The union may be mirrored if each set may.

    Raises:
        DataError: there is no set, or sets differ in classes, sample shape, normalisation, value range or tasks.
    """
    if not sets:
        raise DataError("a union needs at least one synthetic set")
    spec = DataSpec.common([one.spec for one in sets])
    soft = any(one.labels.ndim == 2 for one in sets)
    labels = [_one_hot(one) if soft and one.labels.ndim == 1 else one.labels for one in sets]
    return SyntheticSet(
        arrays={"pixels": torch.cat([one.inputs() for one in sets])},
        parameterization=Pixels(),
        labels=torch.cat(labels),
        spec=spec,
        provenance=dict(provenance or {"union_of": [origin for one in sets for origin in _origins(one)]}),
    )


def _origins(one: SyntheticSet) -> list[dict[str, Any]]:
    """What a set is made of: a union of unions stays a flat list, however often sets are united."""
    return list(one.provenance.get("union_of", [dict(one.provenance)]))


def _one_hot(one: SyntheticSet) -> Tensor:
    return torch.nn.functional.one_hot(one.labels, one.num_classes).float()
