"""Results as one self-contained HTML page."""

from simulations.report.write import write_drawings, write_report

__all__ = ["write_drawings", "write_report"]
