"""What our router needs of Ray's, most of it private: checked before anything depends on it."""

import inspect
from collections.abc import Mapping

import ray
from ray.serve._private.router import AsyncioRouter
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from moss_tp.errors import ConfigError

TRIED = "2.60."  # the releases of Ray that it was tried with

# Parameters of what we override or call, or None for what has none.
_NEEDED: Mapping[type, Mapping[str, tuple[str, ...] | None]] = {
    RequestRouter: {
        "initialize_state": ("self", "kwargs"),
        "choose_replicas": ("self", "candidate_replicas", "pending_request"),
        "_choose_replica_for_request": ("self", "pending_request", "is_retry"),
        "update_replicas": ("self", "replicas"),
        "on_send_request": ("self", "replica_id"),
        "on_new_queue_len_info": ("self", "replica_id", "num_ongoing_requests"),
        "on_request_completed": ("self", "replica_id", "internal_request_id"),
        "on_replica_actor_died": ("self", "replica_id"),
        "on_replica_actor_unavailable": ("self", "replica_id"),
        "_record_queue_wait_time": ("self", "pending_request"),
        "_compute_backoff_s": ("self", "attempt"),
        "_replicas_updated_event": None,
        "curr_replicas": None,
    },
    RunningReplica: {"replica_id": None, "routing_stats": None, "max_ongoing_requests": None},
}
_FIELDS = {"args", "kwargs", "metadata", "created_at", "future"}
# Who calls our override, and hence has a request sent where it says.
_CALLER, _CALLED = "_route_and_send_request_once", "._choose_replica_for_request("


def check_contract() -> None:
    """Raises ConfigError that names what is missing or different in the Ray that is installed."""
    broken = [
        f"{owner.__name__}.{name}"
        for owner, names in _NEEDED.items()
        for name, parameters in names.items()
        if not _is_kept(owner, name, parameters)
    ]
    broken += [f"PendingRequest.{name}" for name in _FIELDS - set(_fields(PendingRequest))]
    caller = getattr(AsyncioRouter, _CALLER, None)
    if caller is None or _CALLED not in inspect.getsource(caller):
        broken.append(f"AsyncioRouter.{_CALLER}")
    if broken:
        raise ConfigError(
            f"ray {ray.__version__} has no {', '.join(sorted(broken))} as the router of models"
            f" needs it; it was tried with ray {TRIED}*"
        )


def _is_kept(owner: type, name: str, parameters: tuple[str, ...] | None) -> bool:
    found = getattr(owner, name, None)
    if found is None or parameters is None:
        return found is not None
    return callable(found) and tuple(inspect.signature(found).parameters) == parameters


def _fields(owner: type) -> list[str]:
    return list(getattr(owner, "__dataclass_fields__", {}))
