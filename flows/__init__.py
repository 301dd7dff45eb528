"""The story told with Prefect and MLflow, and the command line.

Importing this package switches telemetry off, before Prefect or MLflow can be imported: both read these
variables when they start, and so do the servers and workers they start in turn.
"""

import os as _os

_os.environ.setdefault("DO_NOT_TRACK", "true")
_os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
_os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
_os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# Prefect's ephemeral server takes 12 to 30 s on a slow machine, and more on a busy one; its own time-out is 20 s.
_os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
