"""The report of a cross-validated run on planning CTs."""

from medray.systems.headneck.report.write import write_report

__all__ = ["write_report"]
