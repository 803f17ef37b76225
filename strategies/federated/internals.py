"""The parts of Flower that are not in its public interface, and that the rest of this package takes from here alone.

Seen in flwr 1.41 and 1.42. Where a later version moves one of them, this is the file to repair; ``grid.py`` does
with them what a SuperLink would.
"""

from __future__ import annotations

import logging

from flwr.common.constant import NUM_PARTITIONS_KEY, PARTITION_ID_KEY, SUPERLINK_NODE_ID, ErrorCode
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt, generate_shared_key
from flwr.common.secure_aggregation.secaggplus_utils import (
    share_keys_plaintext_concat,
    share_keys_plaintext_separate,
)
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.primitives.asymmetric import (
    bytes_to_public_key,
    generate_key_pairs,
    public_key_to_bytes,
)
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = [
    "NUM_PARTITIONS_KEY",
    "PARTITION_ID_KEY",
    "SUPERLINK_NODE_ID",
    "ErrorCode",
    "Run",
    "TaskIdentity",
    "bytes_to_public_key",
    "combine_shares",
    "create_shares",
    "decrypt",
    "encrypt",
    "generate_key_pairs",
    "generate_shared_key",
    "get_all_nested_objects",
    "log",
    "public_key_to_bytes",
    "share_keys_plaintext_concat",
    "share_keys_plaintext_separate",
]

log = logging.getLogger("flwr.fedcl_distill")
"""A child of Flower's own logger, so that what we say appears wherever Flower's messages do."""
