"""How many replicas there should be, from what those that are ready have to do. It knows no Ray.

The need is a number of replicas, not whole: the largest of what all requests, their tokens, and
the KV blocks of those that run would fill. There should be more where it fills those there are
to more than HIGH, and fewer where it would fill fewer to less than LOW:

    need / LOW   rounded up    as many are enough, with room: fewer than now, for `down_after_s`
    need / HIGH  rounded up    as many are needed: more than now, for `up_after_s`

    of 2 replicas    |------- fewer -------|------- 2 -------|---- more ----
    need             0                LOW * 1            HIGH * 2

What stays below HIGH / LOW times its least value never leads up and down: a number that was
needed at some time is then never too large by enough. And a need is a total: more replicas do not
make it larger. Blocks that are only cached do not count: the prefix cache fills the pool on
purpose. A replica counts when it is ready, and until all of those have said what they do, none is
stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from cluster.scaling.replicas import Replicas

# Of a replica; between them is room for noise by 1.6.
HIGH, LOW = 0.8, 0.5
# A replica is filled by as many requests as run at once, or by fewer of more tokens than these:
# of their prompts what is not cached, and their replies.
TURN_TOKENS = 256
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Load:
    """What one replica says: its requests, waiting or running, and the tokens that these take in
    all, those computed already included; the blocks that running ones hold; and how many blocks it
    has, and requests it runs at once."""

    num_requests: float
    waiting_tokens: float
    running_tokens: float
    held_blocks: float
    num_blocks: float
    num_slots: float


@dataclass(frozen=True)
class Scene:
    """What is seen at one time: `wanted` replicas, of which `num_ready` serve and `loads` are of
    those that have said it lately. `num_queued` requests wait for any of them."""

    wanted: int
    num_ready: int
    loads: Sequence[Load]
    num_queued: float
    now_s: float


@dataclass(frozen=True)
class Pending:
    """A change that the need has asked for since `since_s`, None if it asks for none: of all
    numbers that it asked for, the one nearest to that of now."""

    number: int = 0
    since_s: float | None = None


@dataclass(frozen=True)
class Scaling:
    """The limits, and how long the need has to last."""

    replicas: Replicas
    up_after_s: float = 2.0
    down_after_s: float = 60.0


def decide(scaling: Scaling, scene: Scene, pending: Pending) -> tuple[int, Pending]:
    """The number of replicas that there should be, and what to give the next call."""
    now = scaling.replicas.clip(scene.wanted)
    if now != scene.wanted:
        return now, Pending()
    if scene.wanted == 0:
        return min(1, ceil(scene.num_queued)), Pending()
    number = scaling.replicas.clip(_number(scene))
    if number == now:
        return now, Pending()
    is_up, since_s = number > now, scene.now_s
    if pending.since_s is not None and (pending.number > now) == is_up:
        since_s = pending.since_s
        number = (min if is_up else max)(pending.number, number)
    if scene.now_s - since_s < (scaling.up_after_s if is_up else scaling.down_after_s):
        return now, Pending(number, since_s)
    return number, Pending()


def need(loads: Sequence[Load]) -> float:
    """Replicas that what these have to do would fill."""
    if not loads:
        return 0.0
    tokens = sum(load.waiting_tokens + load.running_tokens for load in loads)
    slots = sum(load.num_slots for load in loads) / len(loads)
    blocks = sum(load.num_blocks for load in loads) / len(loads)
    return max(
        _share(sum(load.num_requests for load in loads), slots),
        _share(tokens, slots * TURN_TOKENS),
        _share(sum(load.held_blocks for load in loads), blocks),
    )


def _number(scene: Scene) -> int:
    """What the need asks for; the present number where it asks for nothing else."""
    now, needed = scene.wanted, need(scene.loads)
    least, enough = _whole(needed / HIGH), _whole(needed / LOW)
    if least > now:
        return least
    is_all_known = len(scene.loads) >= scene.num_ready > 0
    if enough >= now or not is_all_known:
        return now
    # The last one is not stopped under a request, however small.
    is_idle = needed == 0 and scene.num_queued == 0
    return 0 if is_idle and now == 1 else max(enough, 1)


def _whole(number: float) -> int:
    return ceil(number - _ROUNDING)


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
