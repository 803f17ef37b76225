"""Stage after stage: who has something new, a Flower strategy that asks those nodes, and the ClientApp that answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedcl_distill.engine import Distiller
from fedcl_distill.errors import DataError, PayloadError, SettingsError
from fedcl_distill.networks import DEFAULT_NETWORK_LIMITS, NetworkLimits
from fedcl_distill.work_limits import DEFAULT_WORK_LIMITS, WorkLimits
from strategies.federated.aggregation import QuorumError, ReplyCollector
from strategies.federated.answers import METRICS, ClientReport
from strategies.federated.client import chosen, device_of, names_of, partition_of, respond
from strategies.federated.internals import Run, log
from strategies.federated.requests import CONFIG, config_of, spec_in
from strategies.federated.strategy import ClientStep, TrainOnly, registered_steps
from strategies.federated_continual.memories import STRATEGIES
from strategies.federated_continual.streams import ClientStream, StreamTask

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
        messages = self._collector.ask(grid, content, ROLL_CALL)
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


class StagedStrategy(TrainOnly):
    """Runs ``rounds`` rounds of another strategy in each stage, with the nodes that have something new then.

    Rounds are counted through all stages, so that no two of them draw alike. A stage at which nobody has anything new
    leaves the model as it is; so does, where no quorum is asked for, a round without a single answer that can be used:
    with skewed data a stage may depend on one node.

    Args:
        strategy: what happens within a round.
        rounds: of each stage.
        collector: of ``strategy``; its quorum is one of the nodes that are asked.
        availability: finds these.

    Attributes:
        stages_done: before this run began; a run that goes on from a checkpoint counts from there.
        learned_at: the stage at which each experience was first learned from, by experience.
        asked: nodes that were asked in the current stage.
    """

    def __init__(
        self, strategy: Strategy, rounds: int, collector: ReplyCollector, availability: AvailabilityPoll
    ) -> None:
        self.strategy = strategy
        self.rounds = rounds
        self.collector = collector
        self.availability = availability
        self.stages_done = 0
        self.learned_at: dict[int, int] = {}
        self.asked: dict[int, int] = {}

    def number(self, server_round: int) -> int:
        """The round's number in the whole stream, from 1."""
        return self.stages_done * self.rounds + server_round

    def stage(self, server_round: int) -> int:
        """The stage of a round, from 0."""
        return (self.number(server_round) - 1) // self.rounds

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """What the strategy asks the nodes that have something new; at the first round of a stage, find out which.

        Raises:
            QuorumError: no node answers at all.
        """
        number, stage = self.number(server_round), self.stage(server_round)
        if (number - 1) % self.rounds == 0:
            self.asked = self.availability.present(grid, stage, number)
            log.info("stage %d: %d nodes have something new", stage + 1, len(self.asked))
        if not self.asked:
            return []
        self.collector.nodes = len(self.asked)
        messages = list(self.strategy.configure_train(number, arrays, config, _Among(grid, self.asked)))
        for message in messages:
            name_stage(message, stage)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """What the strategy makes of the answers.

        Raises:
            QuorumError: a quorum was asked for, and too few answers could be used.
        """
        if not self.asked:
            return None, None
        number, stage = self.number(server_round), self.stage(server_round)
        try:
            result = self.strategy.aggregate_train(number, replies)
        except QuorumError as error:
            if self.collector.quorum > 0:
                raise
            log.warning("the model stays as it is: %s", error)
            return None, None
        for node, experience in self.asked.items():
            if self.collector.used.get(node) == number:
                self.learned_at.setdefault(experience, stage)
        return result

    def summary(self) -> None:
        """Log what the strategy does."""
        log.info("stage after stage, %d rounds each", self.rounds)
        self.strategy.summary()


class _Among(Grid):
    """``grid`` with some of its nodes alone."""

    def __init__(self, grid: Grid, nodes: Collection[int]) -> None:
        self._grid = grid
        self._nodes = nodes

    def get_node_ids(self) -> Iterable[int]:
        return [node for node in self._grid.get_node_ids() if node in self._nodes]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self._grid.send_and_receive(messages, timeout=timeout)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._grid.pull_messages(message_ids)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    @property
    def run(self) -> Run:
        return self._grid.run

    def set_run(self, run: Run) -> None:
        self._grid.set_run(run)


LoadStream = Callable[[Context], ClientStream]


def make_client_app(
    load_stream: LoadStream,
    *,
    methods: Mapping[str, Distiller] | None = None,
    network_limits: NetworkLimits = DEFAULT_NETWORK_LIMITS,
    answers: Collection[str] | None = None,
    willing: Collection[str] | None = None,
    work_limits: WorkLimits = DEFAULT_WORK_LIMITS,
) -> ClientApp:
    """A ClientApp that answers with the experience that its stream has at the stage of the request.

    An error on a node goes back as an error reply, as always in Flower.

    Args:
        load_stream: gets the node's context; its node configuration names the ``partition-id``, and may name the
            ``device`` to compute on. It is called for every message, so let it keep what takes long to make.
        methods, network_limits, answers, willing, work_limits: as for :func:`strategies.federated.make_client_app`.
    """
    app = ClientApp()
    app.query()(lambda message, context: answer_roll_call(load_stream(context), message, context))

    def handler(step: ClientStep) -> Callable[[Message, Context], Message]:
        def answer(message: Message, context: Context) -> Message:
            started = time.monotonic()
            stream, stage = load_stream(context), stage_of(message.content)
            spec = spec_in(message.content)
            if spec is not None:
                stream = stream.conformed(spec)
            position = stream.position_at(stage)
            if position is None:
                raise DataError(f"this node has nothing new at stage {stage}")
            task = StreamTask(
                message.content,
                stream.experiences[position],
                partition_of(context),
                device_of(context),
                context.state,
                network_limits=network_limits,
                methods=methods or {},
                work_limits=work_limits,
                willing=names_of(willing),
                stream=stream,
                position=position,
            )
            return respond(message, started, task, step)

        return answer

    for step in chosen(registered_steps(STRATEGIES), answers):
        (app.train(step.action) if step.action else app.train())(handler(step))
    return app
