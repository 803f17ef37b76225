"""How much an honest answer to a request may hold: nothing larger is decoded or accepted."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.parameterizations import Parameterization, Pixels, Shape
from fedcl_distill.synthetic import Limits
from strategies.federated.messages.requests import DistilRequest

_SLACK = 2  # a node whose classes hold fewer samples than were asked for may share storage out in another way


@dataclass(frozen=True)
class AnswerLimits:
    """What a set may hold.

    Attributes:
        samples: decoded, of all classes together; None for no bound but that on bytes.
        samples_per_class: decoded, of any class; None where storage is shared, or labels are soft.
        payload_bytes: encoded, at 32 bits a value.
    """

    samples: int | None
    samples_per_class: int | None
    payload_bytes: int

    @property
    def limits(self) -> Limits:
        """What a decoder may read."""
        if self.samples is None:
            return Limits(max_payload_bytes=self.payload_bytes)
        return Limits(max_payload_bytes=self.payload_bytes, max_samples=self.samples)


def room_for(request: DistilRequest, sample_shape: Shape, classes: int) -> AnswerLimits:
    """The most that a node of any class counts may honestly answer to ``request``.

    Raises:
        SettingsError: the request's method or its settings are unknown, or cannot store samples of this shape.
    """
    distiller = build_method(request.method, **request.method_settings)
    if request.byte_budget is not None:
        return AnswerLimits(None, None, request.byte_budget)
    how, ipc = distiller.parameterization, request.images_per_class
    samples = _max_decoded(how, ipc, classes, sample_shape)
    stored = sum(math.prod(shape) for shape in how.shapes([ipc] * classes, sample_shape).values())
    values = stored + samples * classes  # labels may be soft
    plain = isinstance(how, Pixels) and not distiller.labels.soft
    return AnswerLimits(samples, ipc if plain else None, 4 * values + Limits.max_metadata_bytes)


def _max_decoded(how: Parameterization, ipc: int, classes: int, sample_shape: Shape) -> int:
    """Decoded samples of a node that holds 1, 2, … or all classes: the largest of these."""
    if isinstance(how, Pixels):
        return ipc * classes
    most = []
    for present in range(1, classes + 1):
        try:
            most.append(sum(how.decoded_counts([ipc] * present + [0] * (classes - present), sample_shape)))
        except SettingsError:  # too few samples for this way to store them; the node will say so
            if present == classes:
                raise
    return _SLACK * max(most)
