"""At the beginning of a stage the server asks every node whether it has something new to learn from.

Nodes come late, leave, or hold nothing of an experience; a server cannot know it. A node that has nothing says so, in a
few hundred bytes, and is not asked again in that stage: neither are models sent to it, nor is it missed.
"""

from __future__ import annotations

import time

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedcl_distill.errors import PayloadError, SettingsError
from strategies.federated.messages.answers import METRICS, ClientReport
from strategies.federated.messages.requests import CONFIG, config_of
from strategies.federated.node.client import partition_of
from strategies.federated.server.collector import ReplyCollector
from strategies.federated_continual.client_stream import ClientStream

ROLL_CALL = "query"
_STAGE, _ROUND, _EXPERIENCE = "stage", "server-round", "experience"
_NOTHING = -1


class AvailabilityPoll:
    """Asks who has something new.

    Args:
        collector: of the run; what is wrong with a node's answer is noted there.
        experiences: how many there are.
        reply_seconds: to wait for answers.
    """

    def __init__(self, collector: ReplyCollector, experiences: int, reply_seconds: float) -> None:
        self._collector = ReplyCollector(
            collector.nodes,
            wait_seconds=collector.wait_seconds,
            min_examples=0,
            rejections=collector.rejections,
            partitions=collector.partitions,
        )
        self._experiences = experiences
        self._reply_seconds = reply_seconds

    def present(self, grid: Grid, stage: int, server_round: int) -> dict[int, int]:
        """The nodes with new samples, and the experience that each says they are of.

        Raises:
            QuorumError: no node answered.
        """
        content = RecordDict({CONFIG: ConfigRecord({_STAGE: stage, _ROUND: server_round})})
        messages = [Message(content, node, ROLL_CALL) for node in self._collector.wait_for_nodes(grid)]
        self._collector.expect_answers(messages)
        replies = grid.send_and_receive(messages, timeout=self._reply_seconds)
        answers = self._collector.iter_replies(server_round, replies, self._experience)
        return {one.node: one.value for one in answers if one.facts.examples}

    def _experience(self, content: RecordDict) -> int:
        record = content[METRICS]
        value = record.get(_EXPERIENCE) if isinstance(record, MetricRecord) else None
        least = 0 if ClientReport.of(content, 0).examples else _NOTHING
        if type(value) is not int or not least <= value < self._experiences:
            raise PayloadError(f"answer has experience {str(value)[:50]}, expected one of {self._experiences}")
        return value


def answer_roll_call(stream: ClientStream, message: Message, context: Context) -> Message:
    """The node's side: how many new samples it has at this stage, and of which experience they are."""
    started = time.monotonic()
    position = stream.position_at(stage_of(message.content))
    samples = 0 if position is None else len(stream.experiences[position])
    record = ClientReport(partition_of(context), samples, time.monotonic() - started).to_record()
    record[_EXPERIENCE] = _NOTHING if position is None else stream.itinerary.order[position]
    return Message(RecordDict({METRICS: record}), reply_to=message)


def name_stage(message: Message, stage: int) -> None:
    """Let the request say at which stage it is made; messages may share their content."""
    config_of(message.content)[_STAGE] = stage


def stage_of(content: RecordDict) -> int:
    """The stage at which a request was made, from 0; SettingsError if it names none."""
    value = config_of(content).get(_STAGE)
    if type(value) is not int or value < 0:
        raise SettingsError("request names no stage")
    return value
