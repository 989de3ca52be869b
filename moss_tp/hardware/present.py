"""Whether this machine has a GPU that torch can use."""

import subprocess
import sys
from pathlib import Path

_NODES = ("/dev/nvidiactl", "/dev/dxg")  # of the driver; the second one's is WSL


def has_gpu() -> bool:
    """Asks torch in another process, for a process that is to fork others must not have a GPU in
    use; and only where the driver's device node exists, so that a CPU's machine waits for nothing.
    """
    if not any(Path(node).exists() for node in _NODES):
        return False
    asked = "import torch; raise SystemExit(not torch.cuda.is_available())"
    done = subprocess.run([sys.executable, "-c", asked], stderr=subprocess.DEVNULL)
    return done.returncode == 0
