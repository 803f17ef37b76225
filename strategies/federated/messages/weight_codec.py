"""A network's weights in fewer bits, with the codec of synthetic sets."""

from __future__ import annotations

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import nn

from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.synthetic.quantise import Range, dequantise, quantise
from strategies.federated.messages.arrays import put_weights, read_array, weights_of

WEIGHT_BITS = (8, 16, 32)
RANGES = "ranges"
_DTYPES = {8: np.uint8, 16: np.uint16}


def check_weight_bits(bits: int) -> None:
    """SettingsError unless ``bits`` is one of :data:`WEIGHT_BITS`."""
    if bits not in WEIGHT_BITS:
        raise SettingsError(f"weights are sent in {', '.join(map(str, WEIGHT_BITS))} bits, got {bits}")


def pack_network(network: nn.Module, bits: int) -> ArrayRecord:
    """Parameters and buffers of ``network``: as they are, or as codes over the range of each array.

    Below 32 bits, an array ``ranges``, float32 (arrays, 2), tells smallest and largest value, in the network's order.
    """
    check_weight_bits(bits)
    if bits == 32:
        return weights_of(network)
    arrays, ranges = {}, []
    for name, tensor in network.state_dict().items():
        values = np.ascontiguousarray(tensor.detach().cpu().numpy())
        span = Range.of(values)
        arrays[name] = Array(quantise(values, span, bits))
        ranges.append((span.low, span.high))
    return ArrayRecord({**arrays, RANGES: Array(np.array(ranges, np.float32))})


def unpack_network(network: nn.Module, record: ArrayRecord, bits: int) -> None:
    """Load what :func:`pack_network` wrote into ``network``.

    Raises:
        PayloadError: names, dtypes, shapes or ranges are not those of such a network.
    """
    check_weight_bits(bits)
    if bits == 32:
        put_weights(network, record)
        return
    expected = network.state_dict()
    if set(record) != {*expected, RANGES}:
        raise PayloadError(f"{len(record)} weight arrays, expected {len(expected)} and their ranges")
    ranges = read_array(RANGES, record[RANGES], np.float32, (len(expected), 2))
    loaded = {}
    for (name, tensor), (low, high) in zip(expected.items(), ranges.tolist(), strict=True):
        codes = read_array(name, record[name], _DTYPES[bits], tuple(tensor.shape))
        loaded[name] = torch.from_numpy(dequantise(codes, Range(low, high), bits))
    network.load_state_dict(loaded)
