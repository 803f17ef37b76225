"""What a decoder is willing to read: bounds that are checked before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass, fields

from fedcl_distill.errors import SettingsError


@dataclass(frozen=True)
class Limits:
    """Bounds on a payload from an untrusted source.

    Decoding needs, besides the payload itself, at most about six bytes for each stored value (the float32
    result, and for a moment its codes and a finiteness mask) and a few MiB for the header and lookup tables.

    Attributes:
        max_payload_bytes: size of the whole payload.
        max_metadata_bytes: size of its JSON header, with class names and provenance.
        max_samples: decoded samples.
        max_values: float32 values, of all stored arrays together and, separately, of all decoded samples.
        max_classes: classes.

    Raises:
        SettingsError: a bound is not a positive integer.
    """

    max_payload_bytes: int = 64 * 2**20
    max_metadata_bytes: int = 256 * 2**10
    max_samples: int = 100_000
    max_values: int = 2**27
    max_classes: int = 10_000

    def __post_init__(self) -> None:
        for bound in fields(self):
            value = getattr(self, bound.name)
            if type(value) is not int or value < 1:
                raise SettingsError(f"limits: {bound.name} must be a positive integer, got {value!r}")


DEFAULT_LIMITS = Limits()
