"""A federation agrees on what its data look like, before it learns: sites that read their own files know only theirs.

Every node is asked once for a :class:`Statement`: shape, names of classes and columns, how far values reach, and sums
from which mean and deviation of all follow as if the data lay in one place. A node with a privacy budget states names
alone. The server's own data say which shape and columns the run has; nodes that differ are rejected with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.serverapp import Grid

from fedcl_distill.data import DataSpec, LabelledData, Normalisation, conform
from fedcl_distill.errors import DataError, PayloadError, SettingsError
from strategies.federated.aggregation import ReplyCollector
from strategies.federated.answers import VALUES, read_array
from strategies.federated.internals import log
from strategies.federated.requests import CONFIG, Task, round_record
from strategies.federated.strategy import ClientStep

ROUND = 0
"""The round in which nodes state what they have: before the first."""
STATEMENT, MOMENTS = "statement", "moments"
_MOST_NAMES = 10_000
_LONGEST_NAME = 1000


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of all values of each channel or column, and how far they reach.

    Attributes:
        count: values of each.
        mean, squares: float64 (channels,).
        low, high: the least and the largest value of all.
    """

    count: int
    mean: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]
    low: float
    high: float

    @classmethod
    def of(cls, data: LabelledData) -> Moments:
        """Of unit values (pixels in [0, 1], raw features)."""
        values = data.unit().transpose(0, 1).flatten(1).double()
        mean = values.mean(dim=1)
        low, high = torch.aminmax(values)
        squares = (values - mean[:, None]).square().sum(dim=1)
        return cls(values.shape[1], mean.numpy(), squares.numpy(), float(low), float(high))

    def __add__(self, other: Moments) -> Moments:
        """Of both together (Chan et al. 1983): nothing is lost where means are large and deviations small."""
        count, apart = self.count + other.count, other.mean - self.mean
        return Moments(
            count,
            self.mean + apart * (other.count / count),
            self.squares + other.squares + apart**2 * (self.count * other.count / count),
            min(self.low, other.low),
            max(self.high, other.high),
        )

    def in_order(self, places: Sequence[int]) -> Moments:
        """The same with the columns at these ``places``."""
        return replace(self, mean=self.mean[places], squares=self.squares[places])

    @property
    def normalisation(self) -> Normalisation:
        """Of values with these moments."""
        return Normalisation.of_moments(torch.tensor(self.mean), torch.tensor(self.squares / self.count))

    def to_record(self) -> ArrayRecord:
        ends = np.full(len(self.mean), self.low), np.full(len(self.mean), self.high)
        counts = np.full(len(self.mean), float(self.count))
        return ArrayRecord({VALUES: Array(np.stack([counts, self.mean, self.squares, *ends]))})

    @classmethod
    def from_record(cls, record: ArrayRecord, channels: int) -> Moments:
        """What a node sent; PayloadError where it cannot be."""
        if VALUES not in record:
            raise PayloadError(f"moments have no array {VALUES!r}")
        counts, mean, squares, low, high = read_array(VALUES, record[VALUES], np.float64, (5, channels))
        count, least, most = float(counts[0]), float(low[0]), float(high[0])
        if not np.isfinite([*counts, *mean, *squares, *low, *high]).all() or (squares < 0).any():
            raise PayloadError("moments hold NaN, infinity or negative squares")
        if not 1 <= count <= 2**53 or count != int(count) or not (mean >= least).all() or not (mean <= most).all():
            raise PayloadError("moments do not fit together: no values, or a mean outside its range")
        return cls(int(count), mean, squares, least, most)


@dataclass(frozen=True)
class Statement:
    """What one site says of its data.

    Attributes:
        spec: shape, names and permission to mirror; its normalisation and range say nothing.
        moments: None where a privacy budget keeps them back.
    """

    spec: DataSpec
    moments: Moments | None

    @classmethod
    def of(cls, data: LabelledData, *, names_alone: bool = False) -> Statement:
        channels = data.sample_shape[0]
        no_scale = Normalisation((0.0,) * channels, (1.0,) * channels)
        plain = replace(data.spec, normalisation=no_scale, value_range=(0.0, 1.0))
        return cls(plain, None if names_alone or not len(data) else Moments.of(data))

    def moments_of(self, columns: Sequence[str]) -> Moments | None:
        """The moments of columns in this order, where names tell; None where nothing was told."""
        own = self.spec.feature_names
        if self.moments is None or not own or not columns:
            return self.moments
        return self.moments.in_order([own.index(name) for name in columns])

    def to_content(self) -> RecordDict:
        content = RecordDict({STATEMENT: ConfigRecord(self.spec.as_record())})
        if self.moments is not None:
            content[MOMENTS] = self.moments.to_record()
        return content

    @classmethod
    def from_content(cls, content: RecordDict) -> Statement:
        """A statement from anyone; PayloadError where it is none."""
        stated, moments = content.get(STATEMENT), content.get(MOMENTS)
        if not isinstance(stated, ConfigRecord):
            raise PayloadError(f"answer has no {STATEMENT}")
        try:
            spec = DataSpec.from_record(dict(stated))
        except DataError as error:
            raise PayloadError(str(error)) from error
        names = (*spec.class_names, *spec.feature_names)
        if len(names) > 2 * _MOST_NAMES or max(map(len, names)) > _LONGEST_NAME:
            raise PayloadError(f"a statement has at most {_MOST_NAMES} names of at most {_LONGEST_NAME} characters")
        channels = spec.sample_shape[0]
        return cls(spec, Moments.from_record(moments, channels) if isinstance(moments, ArrayRecord) else None)


def describe(task: Task) -> RecordDict:
    """What the node has; names alone, where it has a privacy budget."""
    return Statement.of(task.data, names_alone=task.budget is not None).to_content()


DESCRIBE = ClientStep("describe", describe, protected=True, discreet=True)


def agree(grid: Grid, collector: ReplyCollector, own: LabelledData, *, seconds: float) -> DataSpec:
    """One specification for all nodes that fit the server's ``own`` data, which says shape and columns.

    Classes are all that anybody names: in the server's order where it names them all, else sorted. Mean and deviation
    are those of all data of the nodes, and the range covers all of them. Images of 8 bits keep the range [0, 1].

    Args:
        grid: how nodes are reached.
        collector: waits for nodes, and rejects those that differ.
        own: the server's.
        seconds: for the answers.

    Raises:
        QuorumError: too few nodes answered, or fit.
        SettingsError: names of classes differ in case or spaces only, or no node may tell the scale of its data.
    """
    messages = collector.ask(grid, RecordDict({CONFIG: round_record(ROUND)}), DESCRIBE.kind)
    replies = grid.send_and_receive(messages, timeout=seconds)
    fitting = list[Statement]()
    for answer in collector.iter_replies(ROUND, replies, Statement.from_content):
        columns = _columns(own.spec, fitting)
        reason = _misfit(answer.value, own.with_spec(feature_names=columns))
        if reason:
            collector.reject(ROUND, answer, reason)
        else:
            fitting.append(answer.value)
    collector.require_quorum(ROUND, len(fitting))
    spec = common_spec(fitting, own)
    log.info("%d nodes agreed: %d classes, values in [%g, %g]", len(fitting), spec.num_classes, *spec.value_range)
    return spec


def common_spec(statements: Sequence[Statement], own: LabelledData) -> DataSpec:
    """What :func:`agree` makes of the statements of all that fit; SettingsError as there."""
    names = _all_names([own.spec.class_names, *(one.spec.class_names for one in statements)])
    columns = _columns(own.spec, statements)
    told = [moments for one in statements if (moments := one.moments_of(columns)) is not None]
    if not told:
        raise SettingsError(
            "no node may say on which scale its data are: give the run a specification of its own (spec=DataSpec(…))"
        )
    moments = reduce(Moments.__add__, told)
    pixels = own.samples.dtype == torch.uint8
    return DataSpec(
        sample_shape=own.sample_shape,
        class_names=names,
        normalisation=moments.normalisation,
        value_range=(0.0, 1.0) if pixels else (moments.low, moments.high),
        allow_hflip=own.allow_hflip and all(one.spec.allow_hflip for one in statements),
        feature_names=columns,
        backbone=own.spec.backbone,
    )


def _columns(own: DataSpec, statements: Sequence[Statement]) -> tuple[str, ...]:
    """The columns in the order of the run: the server's, or that of the first node that names them."""
    return next((names for spec in (own, *(one.spec for one in statements)) if (names := spec.feature_names)), ())


def _misfit(statement: Statement, own: LabelledData) -> str:
    """Why data of which this is said cannot take part in a run of data like ``own``; "" where they can."""
    spec, moments = statement.spec, statement.moments
    blank = LabelledData.blank(spec, (0,) * spec.num_classes, "data")
    try:
        conform(blank, replace(own.spec, class_names=spec.class_names, tasks=None))
    except DataError as error:
        return str(error)
    if own.samples.dtype == torch.uint8 and moments is not None and not 0 <= moments.low <= moments.high <= 1:
        return f"values span [{moments.low:g}, {moments.high:g}], those of pixels lie in [0, 1]"
    numbered = [all(name.isdigit() for name in names) for names in (spec.class_names, own.class_names)]
    if numbered[0] != numbered[1]:
        return "classes have names on one side and numbers on the other: give class_names=… where data are read"
    return ""


def _all_names(lists: Sequence[Sequence[str]]) -> tuple[str, ...]:
    own, found = tuple(lists[0]), {name for names in lists for name in names}
    alike: dict[str, str] = {}
    for name in sorted(found):
        other = alike.setdefault(name.strip().casefold(), name)
        if other != name:
            raise SettingsError(
                f"{other!r} and {name!r} are classes of different sites: if they are one, let all spell it alike"
            )
    if found <= set(own):
        return own
    return tuple(sorted(found, key=lambda name: (int(name), "") if name.isdigit() else (len(found), name)))
