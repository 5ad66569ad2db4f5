"""The report of a model on chest films: one page for the people who will judge it."""

from medray.chest.report.pictures import Pictured, collect
from medray.chest.report.write import write_report

__all__ = ["Pictured", "collect", "write_report"]
