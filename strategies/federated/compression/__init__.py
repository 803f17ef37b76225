"""Updates of a model in few bytes: what FedAvg's messages can be compressed to."""

from strategies.federated.compression.codec import Plain, UpdateCodec, Vector
from strategies.federated.compression.quantised import Quantised
from strategies.federated.compression.reading import read_codec
from strategies.federated.compression.top_k import TopK

__all__ = ["Plain", "Quantised", "TopK", "UpdateCodec", "Vector", "read_codec"]
