import subprocess
import sys

import pytest

# Prints the niceness of a thread that was there before, of the main one, and of one begun later.
SCRIPT = """
import os, threading
from serve_app.precedence import yield_to_the_model

def niceness():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

def later():
    print(niceness())

is_set = threading.Event()
os.nice({base})
before = threading.Thread(target=lambda: (is_set.wait(), print(niceness())))
before.start()
yield_to_the_model()
is_set.set()
before.join()
print(niceness())
after = threading.Thread(target=later)
after.start()
after.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="niceness of threads is Linux's")
@pytest.mark.parametrize(("base", "niceness"), [(0, "5"), (10, "15"), (16, "19")])
def test_all_threads_yield(base: int, niceness: str) -> None:
    script = SCRIPT.format(base=base)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [niceness] * 3
