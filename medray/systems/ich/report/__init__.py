"""The report of a cross-validated run: one page for the people who will judge the model."""

from medray.systems.ich.report.pictures import Pictures, collect_pictures
from medray.systems.ich.report.sections import report_sections
from medray.systems.ich.report.write import write_report

__all__ = ["Pictures", "collect_pictures", "report_sections", "write_report"]
