"""The report of a cross-validated run on hand films."""

from medray.systems.boneage.report.write import write_report

__all__ = ["write_report"]
