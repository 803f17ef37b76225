"""Results as one self-contained HTML page."""

from simulations.report.page import write_drawings, write_report

__all__ = ["write_drawings", "write_report"]
