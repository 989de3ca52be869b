"""Where a request should go, as its sender knows it; a router reads it beside the request."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Route:
    """Travels as the keyword argument `route` of a model replica's `generate`.

    Requests of one `key` should reach the replica that has their blocks; "" has no preference.
    Replicas in `avoid`, by their full unique ids, are chosen only if there is no other. A request
    that goes on after tokens of another replica names the `make_up` that its own must have.
    `age_s` is how long ago it was sent first if another replica was lost with it, else None.
    """

    key: str = ""
    avoid: tuple[str, ...] = ()
    make_up: str = ""
    age_s: float | None = None


ANYWHERE = Route()
