"""The few verbs that do the work: shard, fit, predict, track, report. The only place that imports Ray or MLflow."""

from medray.engine import environment

environment.set_defaults()
