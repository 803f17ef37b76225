"""The parts of Flower that are not in its public interface, and that the rest of this package takes from here alone.

Seen in flwr 1.41 and 1.42. Where a later version moves one of them, this is the file to repair.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from flwr.app import ArrayRecord, Message, RecordDict
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
    "ErrorCode",
    "Run",
    "bytes_to_public_key",
    "combine_shares",
    "create_shares",
    "decrypt",
    "encrypt",
    "generate_key_pairs",
    "generate_shared_key",
    "log",
    "name_message",
    "public_key_to_bytes",
    "run_identity",
    "sent_bytes",
    "share_keys_plaintext_concat",
    "share_keys_plaintext_separate",
]

log = logging.getLogger("flwr.fedcl_distill")
"""A child of Flower's own logger, so that what we say appears wherever Flower's messages do."""


@contextmanager
def run_identity(run_id: int) -> Iterator[None]:
    """Let ``Message(...)`` be called as on a server inside run ``run_id``; Flower's processes are born with that."""
    names = ("_task_id", "_run_id", "_node_id")
    before = {name: getattr(TaskIdentity, name) for name in names}
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = run_id, run_id, SUPERLINK_NODE_ID
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(TaskIdentity, name, value)


def name_message(message: Message, message_id: str) -> None:
    """Give ``message`` the id that a SuperLink would give it."""
    message.metadata.__dict__["_message_id"] = message_id


def sent_bytes(content: RecordDict) -> tuple[int, int]:
    """What Flower sends for ``content``: bytes of all its objects, and the part of them that is array data.

    A SuperLink and its nodes exchange content as a tree of objects (the record dictionary, its records, their arrays,
    pieces of array data), each named by the hash of its bytes, an object that occurs twice only once. Array data are
    ``.npy`` files: 128 bytes of header for an array, then its values.
    """
    total = sum(len(one.deflate()) for one in get_all_nested_objects(content).values())
    records = [record for record in content.values() if isinstance(record, ArrayRecord)]
    return total, sum(len(array.data) for record in records for array in record.values())
