"""The report of a model on chest films: one page for the people who will judge it."""

from medray.systems.chest.report.pictures import Pictured, collect
from medray.systems.chest.report.write import write_report

__all__ = ["Pictured", "collect", "write_report"]
