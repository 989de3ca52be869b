"""Bounds of histograms: those of vLLM, so that its dashboards and ours show the same lines."""

from moss_tp.engine.scheduling.waits import BOUNDS_S

FIRST_TOKEN_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0),
    *(2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
BETWEEN_TOKENS_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0),
    *(2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
REQUEST_S = BOUNDS_S
# Ours: a plugin has 5 s at most.
PLUGIN_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def token_bounds(max_model_len: int) -> tuple[int, ...]:
    """1, 2, 5, 10, 20, 50, … up to `max_model_len`."""
    powers = (10**exponent for exponent in range(len(str(max_model_len))))
    bounds = (factor * power for power in powers for factor in (1, 2, 5))
    return tuple(bound for bound in bounds if bound <= max_model_len)
