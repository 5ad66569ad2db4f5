"""The report of a ladder of networks that learn from sources with few organs each."""

from medray.systems.fewlabel.report.write import write_report

__all__ = ["write_report"]
