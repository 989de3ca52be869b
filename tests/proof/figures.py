"""What the long forms measure, a line of JSON each, for the table that `make chaos` ends with.

PROOF_RESULTS names the file that lines are appended to; without it they are only printed.
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = "PROOF_RESULTS"


@dataclass(frozen=True)
class Bar:
    """`measure` is what is done, `bar` what has to come out."""

    measure: str
    bar: str


BARS = {
    "kills": Bar(
        "digest model and history checker: clients of two tenants, random kills of ingress,"
        " replica, plugin, store, proxy and controller",
        "G1–G10 hold; no call with effects twice",
    ),
    "ingress": Bar(
        "an ingress of two killed in the middle of 50 streamed session turns; clients come back"
        " with `Last-Event-ID`",
        "all byte-identical, p95 gap ≤ 5 s",
    ),
    "nobody": Bar(
        "the same, and nobody asks for the turns again", "every turn ends, with the same bytes"
    ),
    "updates": Bar(
        "50 rolling updates of all replicas under load, by clients that never try again",
        "0 failed requests, 0 cut turns",
    ),
    "stopped": Bar(
        "a lease holder stopped for 40 s, then continued",
        "no event twice, no foreign event, one commit a turn",
    ),
    "store-kill": Bar("store: `kill -9` under 20 writers, 10 rounds", "no acked turn lost"),
    "store-power": Bar("store: power loss under 20 writers, 10 rounds", "no acked turn lost"),
    "aborts": Bar(
        "100 streams of an engine, 10 aborted at random",
        "90 exact; an aborted one's blocks and slot free within 1 s",
    ),
    "plugin-end": Bar("the plugin call of a turn that is cancelled", "ends within 100 ms"),
    "overload": Bar(
        "an engine under 3 × its capacity for 60 s, open loop",
        "only 200, 429 or 503 with Retry-After; goodput ≥ 80 % of peak; normal within 5 s after",
    ),
    "one-winner": Bar(
        "16 clients post to one uid, 50 turns", "one winner a turn, the rest 409 within 100 ms"
    ),
    "canaries": Bar(
        "two tenants, canaries in every message, 2,000 steps",
        "no foreign canary in responses, logs or keys",
    ),
    "timing": Bar(
        "a foreign uid and an unknown one, 2,000 alternating pairs", "their times differ by < 5 %"
    ),
    "schema": Bar("schemathesis, all checks, 500 cases an operation", "no 5xx"),
    "failover": Bar(
        "a group of two killed in the middle of 12 streams at a random time: greedy, sampled with"
        " penalties, stop strings, two choices, turns of two passes",
        "all byte-identical, p95 gap ≤ 3 s",
    ),
    "failover-rank": Bar("the same at tp 2, and a rank is killed", "the same; no orphan"),
    "failover-alone": Bar(
        "the same, and it is the only group", "all byte-identical, p95 gap ≤ 15 s"
    ),
    "poison": Bar(
        "a request that ends each group that computes it, beside the same streams",
        "ends typed after two groups; no other stream is lost",
    ),
    **{
        f"stop-{part}": Bar(
            f"SIGSTOP of a {part} for 10 s under streams", "each goes on or ends, no byte is added"
        )
        for part in ("replica", "rank", "plugin", "store")
    },
    "front": Bar(
        "`kill -9` of ingress, controller and proxy under 20 streamed turns each; clients of new"
        " requests retry refused connections for 5 s",
        "60 of 60 new requests answered; all turns go on to the same bytes",
    ),
    "routing": Bar(
        "64 chats of 20 turns over 3 replicas and 2 ingresses, with uids and without",
        "≥ 95 % of turns land on their prefix; prompt tokens computed ≤ 0.4 × those of Serve's"
        " router",
    ),
    "scaling": Bar(
        "1 → 3 → 1 replicas under 100 streams, ten cycles",
        "0 cut streams; back at one within delay + 15 s; no flapping",
    ),
    "cost": Bar(
        "32 streams of a server with our router, heartbeats and metrics, and of one without,"
        " alternating",
        "≤ 3 % of throughput",
    ),
    "page-breaks": Bar(
        "the page: F5, a second tab, the ingress killed, each in the middle of ten answers",
        "the same text in all",
    ),
    "page-frames": Bar(
        "the page: a streamed reply of 10,000 characters with code and formulas",
        "no frame over 50 ms",
    ),
    "page-paint": Bar("the page: first contentful paint on loopback", "< 300 ms"),
    "soak": Bar(
        "2 h of 8 clients",
        "second hour: RSS + < 0.1 MB/min without the store's, descriptors flat",
    ),
}


@dataclass(frozen=True)
class Figure:
    """What one run has measured, where, when and of which commit."""

    name: str
    measured: str
    holds: bool
    machine: str
    commit: str
    date: str


def note(name: str, measured: str, holds: bool) -> None:
    """Prints the figure and appends it to the results. `name` is one of BARS."""
    bar = BARS[name]
    print(f"{bar.measure}: {measured} (bar: {bar.bar}){'' if holds else ' MISSED'}")
    if path := os.environ.get(RESULTS):
        figure = Figure(name, measured, holds, machine(), commit(), time.strftime("%Y-%m-%d %H:%M"))
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(figure), ensure_ascii=False) + "\n")


def check(name: str, measured: str, holds: bool) -> None:
    """Notes the figure, and fails if the bar is missed."""
    note(name, measured, holds)
    assert holds, f"{BARS[name].bar}: {measured}"


@contextmanager
def measured(name: str) -> Iterator[list[str]]:
    """Notes what the block appends. If the block raises, the bar is missed."""
    texts: list[str] = []
    try:
        yield texts
    except BaseException as error:
        note(name, ", ".join([*texts, f"{type(error).__name__}: {error}"[:200]]), False)
        raise
    note(name, ", ".join(texts), True)


def machine() -> str:
    """Its cores and its processor."""
    lines = Path("/proc/cpuinfo").read_text("utf-8") if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2] for line in lines.splitlines() if line.startswith("model name")]
    cpu = names[0].strip() if names else platform.processor() or platform.machine()
    return f"{len(os.sched_getaffinity(0))} cores, {cpu}"


def commit() -> str:
    """Of the working tree, with a + if it has changes."""
    here = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"]
    try:
        return subprocess.run(
            command, cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def percentile(values: list[float], share: float) -> float:
    """The value below which that share of `values` lies; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
