"""What a node keeps from one round for a later one, so that it never differs from what the server knows.

A node cannot know whether its answer arrived and was used. It keeps what belongs to the answer under the round's
number, and the next request says in which round an answer of this node was used last. What belongs to any other round
is forgotten: a round whose answer was not used has not happened, on either side.
"""

from __future__ import annotations

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from fedcl_distill.errors import CheckpointError, SettingsError
from strategies.federated.messages.requests import CONFIG, config_of

_USED_KEY = "used-round"
_KEPT = "kept-in-round-"


def reminding(message: Message, used_round: int) -> Message:
    """``message`` as a message for its node alone: it names the round whose answer was used last, 0 for none."""
    config = ConfigRecord({**config_of(message.content), _USED_KEY: used_round})
    content = RecordDict({**message.content, CONFIG: config})
    return Message(content, message.metadata.dst_node_id, message.metadata.message_type)


def recall(state: RecordDict, request: RecordDict) -> ArrayRecord | None:
    """What was kept in the round that ``request`` names, and nothing else stays; None if no answer was used yet.

    Raises:
        CheckpointError: it was in a round that this node knows nothing of, as after a restart.
        SettingsError: the request names no round.
    """
    used = config_of(request).get(_USED_KEY)
    if type(used) is not int:
        raise SettingsError(f"request has no {_USED_KEY}")
    name = f"{_KEPT}{used}"
    for other in [key for key in state if key.startswith(_KEPT) and key != name]:
        del state[other]
    if used == 0:
        return None
    kept = state.get(name)
    if not isinstance(kept, ArrayRecord):
        raise CheckpointError(f"this node has lost what it kept in round {used}; it cannot go on with this run")
    return kept


def keep(state: RecordDict, server_round: int, arrays: ArrayRecord) -> None:
    """Keep ``arrays`` until the server says whether the answer of ``server_round`` was used."""
    state[f"{_KEPT}{server_round}"] = arrays
