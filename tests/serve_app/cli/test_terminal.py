"""The user sees only our lines; library output, even from C, goes to the log."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, sys
from pathlib import Path
from serve_app.cli.terminal import quiet_terminal
with quiet_terminal(Path(sys.argv[1])) as terminal:
    print("noise from Python")
    os.write(1, b"noise from C on stdout\\n")
    os.write(2, b"noise from C on stderr\\n")
    terminal.say("starting 你好")
print("out")
print("err", file=sys.stderr)
"""


def test_only_our_lines_reach_the_terminal(tmp_path: Path) -> None:
    log = tmp_path / "log"
    shown = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(log)], capture_output=True, text=True, timeout=60
    )
    assert shown.stdout == "out\n"
    assert shown.stderr == "moss: starting 你好\nerr\n"
    assert sorted(log.read_text("utf-8").splitlines()) == [
        "noise from C on stderr",
        "noise from C on stdout",
        "noise from Python",
    ]
