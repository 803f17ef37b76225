"""Codecs by name."""

from __future__ import annotations

from collections.abc import Callable

from fedcl_distill.specs import read_spec
from strategies.federated.messages.compression.codec import Plain, UpdateCodec
from strategies.federated.messages.compression.quantised import Quantised
from strategies.federated.messages.compression.top_k import TopK

_CODECS: dict[str, Callable[..., UpdateCodec]] = {"plain": Plain, "topk": TopK, "quantised": Quantised}


def read_codec(text: str) -> UpdateCodec:
    """The codec that ``text`` names: "plain", "topk:fraction=0.01" or "quantised:bits=4".

    Raises:
        SettingsError: the name or a setting is unknown, or a value is out of range.
    """
    return read_spec("codec", text, _CODECS)
