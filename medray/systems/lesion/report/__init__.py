"""The report of a cross-validated run on scans."""

from medray.systems.lesion.report.write import write_report

__all__ = ["write_report"]
