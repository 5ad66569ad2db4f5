"""Environment variables that Ray, Tune and MLflow read when they are imported, or when a Ray is started here."""

from __future__ import annotations

import os

DEFAULTS = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else `uv run` rebuilds the environment for every worker
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # a report waits for the next check: 2 s by default
    # of a Ray that is started here: reading tasks come and go, and a fresh worker imports for seconds before it reads
    "RAY_idle_worker_killing_time_threshold_ms": "600000",
    "RAY_task_oom_retries": "3",  # else a run that does not fit into memory is started for ever
    # of a node that was lost a moment ago: a run with a range of workers then counts again
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints boxes whatever the verbosity
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # what a trial did lies in its own folder
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # with its own an interrupted search ends as if all its trials had
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that failed before its first report
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the defaults wait for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
    # nobody is told that medray runs, or where
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9",  # a cluster of `ray start` reports that it does not report
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def set_defaults() -> None:
    """Set what the shell has not set. Called by the package, before any of its modules can import Ray."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
