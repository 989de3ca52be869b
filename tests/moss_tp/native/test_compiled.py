"""Where compiled functions are cached, when several threads compile at the same time."""

import threading
from typing import Any

import numba

from moss_tp.native.compiled import _cached
from moss_tp.native.sources import cache_dir, register_sources

register_sources(__file__)


def test_threads_that_compile_at_once_leave_numbas_setting_as_it_was() -> None:
    """The first ends while the second would be compiling, if they did not wait for each other."""
    config: Any = numba.config
    before, seen = config.CACHE_DIR, []
    has_begun, is_first_done = threading.Event(), threading.Event()

    def compile_first(function: Any) -> None:
        second.start()
        has_begun.wait(timeout=0.2)

    def compile_second(function: Any) -> None:
        has_begun.set()
        is_first_done.wait(timeout=5)
        seen.append(config.CACHE_DIR)

    second = threading.Thread(target=lambda: _cached(compile_second)(compile_second))
    _cached(compile_first)(compile_first)
    is_first_done.set()
    second.join()
    assert seen == [cache_dir(__file__)]
    assert before == config.CACHE_DIR
