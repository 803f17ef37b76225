"""Updates of a model in few bytes: what FedAvg's messages can be compressed to."""

from strategies.federated.messages.compression.codec import Plain, UpdateCodec, Vector
from strategies.federated.messages.compression.quantised import Quantised
from strategies.federated.messages.compression.reading import read_codec
from strategies.federated.messages.compression.top_k import TopK

__all__ = ["Plain", "Quantised", "TopK", "UpdateCodec", "Vector", "read_codec"]
