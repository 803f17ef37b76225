"""A privacy budget on disk: what a data set may still release, which outlives the process that spends it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedcl_distill.errors import FedclDistillError, PrivacyError, SettingsError, StorageError
from fedcl_distill.files import locked, write_atomically
from fedcl_distill.privacy.accounting import Delta, Epsilon, Mechanism, epsilon_of
from fedcl_distill.settings import settings
from fedcl_distill.synthetic.container import compact, parse_object

_FORMAT = 1
EVERYTHING = ""


@dataclass(frozen=True)
class Release:
    """One entry of a ledger.

    Attributes:
        name: of the release; the same release under the same name costs once.
        what: in words.
        mechanism: the noise it has.
        part: which records it looks at; "" for all. Releases of different parts must have no record in common.
    """

    name: str
    what: str
    mechanism: Mechanism
    part: str = EVERYTHING


@settings
class PrivacyBudget:
    """(ε, δ) for all releases of one data set together, kept in a file.

    A release is written down before it is made: a crash in between counts as spent. The file is replaced as a whole,
    holds a checksum, and is locked while a process decides. Whoever deletes it starts anew: keep it as safe as the
    data. A budget on a file that is already there must have its ε and δ.

    Attributes:
        path: of the ledger.
        epsilon, delta: what all releases together may cost, for one record added or removed.

    Raises:
        SettingsError: on construction, if ε or δ is out of range.
    """

    path: str | os.PathLike[str]
    epsilon: Epsilon
    delta: Delta

    def spend(self, release: Release) -> None:
        """Write ``release`` down; from then on it may be made.

        Raises:
            PrivacyError: it would exceed the budget, or the ledger is damaged or has another budget; nothing changed.
            StorageError: the ledger could not be written; the release must not be made.
            DependencyError: dp-accounting is not installed.
        """
        with locked(f"{os.fspath(self.path)}.lock"):
            before = self._read()
            if any(one.name == release.name for one in before):
                if release not in before:
                    raise PrivacyError(f"ledger {self.path}: another release has the name {release.name!r}")
                return
            after = [*before, release]
            total = self._epsilon(after)
            if total > self.epsilon:
                raise PrivacyError(
                    f"privacy budget {self.path}: {release.what} would bring ε from {self._epsilon(before):.3g} to "
                    f"{total:.3g}, and {self.epsilon:g} are allowed (δ {self.delta:g})"
                )
            self._write(after)

    def spent(self) -> float:
        """ε of all that was written down so far, at the budget's δ; PrivacyError as for :meth:`spend`."""
        return self._epsilon(self.releases())

    def releases(self) -> list[Release]:
        """What was written down, the oldest first; PrivacyError as for :meth:`spend`."""
        with locked(f"{os.fspath(self.path)}.lock"):
            return self._read()

    def _epsilon(self, releases: Sequence[Release]) -> float:
        """Releases of all records count for every part; those of different parts do not add up."""
        parts = {one.part for one in releases} - {EVERYTHING} or {EVERYTHING}
        return max(
            epsilon_of([one.mechanism for one in releases if one.part in (EVERYTHING, part)], self.delta)
            for part in parts
        )

    def _write(self, releases: Sequence[Release]) -> None:
        content = {
            "format": _FORMAT,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "releases": [asdict(one) for one in releases],
        }
        write_atomically(self.path, compact({**content, "checksum": _checksum(content)}).encode())

    def _read(self) -> list[Release]:
        file = Path(self.path)
        if not file.exists():
            return []
        try:
            content = parse_object(file.read_text("utf-8"), "ledger")
            if content.pop("checksum") != _checksum(content) or content["format"] != _FORMAT:
                raise SettingsError("its checksum or format is wrong")
            releases = [_release(one) for one in content["releases"]]
        except OSError as error:
            raise StorageError(f"could not read {file}: {error.strerror or error}") from error
        except (FedclDistillError, KeyError, TypeError, ValueError) as error:
            raise PrivacyError(f"ledger {file} is damaged, nothing more is released: {str(error)[:200]}") from error
        if (content["epsilon"], content["delta"]) != (self.epsilon, self.delta):
            raise PrivacyError(
                f"ledger {file} is of the budget ε {content['epsilon']}, δ {content['delta']}, "
                f"not ε {self.epsilon:g}, δ {self.delta:g}"
            )
        return releases


def _release(record: dict[str, Any]) -> Release:
    return Release(record["name"], record["what"], Mechanism(**record["mechanism"]), record["part"])


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(compact(content).encode()).hexdigest()
