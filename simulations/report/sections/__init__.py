"""The sections of a report, one module each: from results to blocks. A section without results is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simulations.report.blocks import Section
from simulations.report.sections.audit import audit_section
from simulations.report.sections.continual import continual_section
from simulations.report.sections.distil import distil_section
from simulations.report.sections.federated import federated_section
from simulations.report.sections.federated_continual import federated_continual_section
from simulations.report.sections.privacy import privacy_section
from simulations.report.source import Sourced

MakeSection = Callable[[Sequence[Sourced]], Section | None]

SECTIONS: tuple[MakeSection, ...] = (
    federated_section,
    continual_section,
    federated_continual_section,
    distil_section,
    privacy_section,
    audit_section,
)
"""In the order of the page."""
