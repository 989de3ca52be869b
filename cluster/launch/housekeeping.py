"""How often a private Ray looks after itself.

Its defaults are made for clusters that many programs share. On a machine of two cores, where the
model needs all of them, an idle Ray takes a tenth of them so.
"""

import os

_HOUSEKEEPING = {
    # The log monitor looks for new files ten times a second while there are few of them.
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
    "LOG_NAME_UPDATE_INTERVAL_S": "5",
    "REPORTER_UPDATE_INTERVAL_MS": "30000",  # by default 5 s: the figures of all processes
    "RAY_metrics_report_interval_ms": "30000",  # by default 10 s
    "RAY_event_stats": "0",  # how long each of Ray's own handlers takes
}
_TASK_EVENTS = "RAY_task_events_report_interval_ms"  # 0: none; only the dashboard shows them


def housekeeping(*, has_dashboard: bool) -> dict[str, str]:
    """Variables for Ray's processes; what the user has set stays."""
    values = dict(_HOUSEKEEPING) if has_dashboard else {**_HOUSEKEEPING, _TASK_EVENTS: "0"}
    return {name: os.environ.get(name, value) for name, value in values.items()}
