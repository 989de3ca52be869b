"""The phases of a start, on a clock that is set by hand."""

from serve_app.deployments.start_up import StartUp


def test_a_phase_within_another_counts_once() -> None:
    now = [0.0]
    start = StartUp(lambda: now[0])
    with start.phase("imports"):
        now[0] = 2
    with start.phase("warm-up"):
        now[0] = 3
        with start.phase("weights"):
            now[0] = 7
        now[0] = 8
    assert start.phases == {"imports": 2, "weights": 4, "warm-up": 2}
