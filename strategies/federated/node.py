"""One request at one node: what there is to work with, and what outlives the round.

A node cannot know whether its answer arrived and was used. It keeps what belongs to the answer under the round's
number, and the next request says in which round an answer of this node was used last. What belongs to any other round
is forgotten: a round whose answer was not used has not happened, on either side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from fedcl_distill.data import LabelledData
from fedcl_distill.engine import Distiller
from fedcl_distill.errors import CheckpointError, SettingsError
from fedcl_distill.networks import DEFAULT_NETWORK_LIMITS, Architecture, Network, NetworkLimits, architectures_in
from fedcl_distill.privacy import PrivacyBudget
from fedcl_distill.work_limits import DEFAULT_WORK_LIMITS, WorkLimits
from strategies.federated.identity import NodeIdentity
from strategies.federated.requests import (
    CONFIG,
    R,
    Request,
    StatisticsRequest,
    config_of,
    round_of,
)

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


@dataclass(frozen=True)
class Task:
    """What a node is asked, and what it has to work with.

    Attributes:
        content: of the request.
        data: the node's own.
        partition: which part of all data these are.
        device: where to compute.
        state: what the node keeps over rounds.
        budget: what the data may release under differential privacy.
        network_limits: how large a network may be asked for.
        methods: distillers that this node has beside those that are registered.
        work_limits: what a request may ask for, and what the answer may take.
        willing: names of the methods that the node runs when it is asked; None for any.
        identity: what the node signs with, and whom it knows; None for a fresh key each round, and nobody.
    """

    content: RecordDict
    data: LabelledData
    partition: int
    device: str
    state: RecordDict
    budget: PrivacyBudget | None = None
    network_limits: NetworkLimits = DEFAULT_NETWORK_LIMITS
    methods: Mapping[str, Distiller] = field(default_factory=dict)
    identity: NodeIdentity | None = None
    work_limits: WorkLimits = DEFAULT_WORK_LIMITS
    willing: frozenset[str] | None = None

    def read(self, kind: type[R], key: str = CONFIG) -> R:
        """The request under ``key``.

        Raises:
            SettingsError: there is none, it cannot be read, or a number in it is larger than this node takes.
        """
        request = kind.of(self.content, key)
        self.work_limits.check_numbers(request)
        return request

    @property
    def server_round(self) -> int:
        return round_of(self.content)

    def seed(self, request: Request) -> int:
        """Of this node in this round."""
        return request.seed_for(self.server_round, self.partition)

    def network(self, request: Request, text: str) -> Network:
        """A fresh network of the architecture that ``text``, of ``request``, names."""
        architecture = Architecture.parse(text)
        self.admit(architecture)
        seed = self.seed(request)
        return architecture.build(self.data.sample_shape, self.data.num_classes, seed=seed, device=self.device)

    def check_willing(self, method: str) -> None:
        """Return if the node runs the method called ``method`` when it is asked; SettingsError if not."""
        if self.willing is not None and method not in self.willing:
            raise SettingsError(f"this node does not run {method!r}; it runs: {', '.join(sorted(self.willing))}")

    def admit(self, part: object) -> None:
        """Return if all networks that ``part``, an architecture or a method, names are small enough to be built here.

        Raises:
            SettingsError: one is not.
        """
        for architecture in architectures_in(part):
            self.network_limits.check(architecture, self.data.sample_shape, self.data.num_classes)

    def admit_sums(self, request: StatisticsRequest) -> None:
        """Return if the networks behind the sums, and the sums themselves, are small enough; SettingsError if not."""
        self.admit(request.specification.architecture_for(self.data.sample_shape))
        request.check_size(self.data)
