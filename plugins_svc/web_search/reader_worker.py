"""The process that reads documents: `python -m plugins_svc.web_search.reader_worker`.

It limits itself before it reads anything. For each path (a JSON string on a line of stdin) it
prints JSON lists, one a line: `[title, text, guess]` for each part, then `[reason]`, which is empty
if the file was read to its end. It exits at end of input, so it cannot outlive its parent.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

from plugins_svc.sdk.limited_process import limit_cpu_from_now, limit_memory_and_files
from plugins_svc.web_search.encodings import UnreadableError
from plugins_svc.web_search.readers import read_file

MEMORY_BYTES = 1024 * 2**20
CPU_SECONDS = 60


def limit_process() -> None:
    """Limit this process to MEMORY_BYTES of address space, no written file and no core dump."""
    limit_memory_and_files(MEMORY_BYTES)


def limit_cpu() -> None:
    """Allow CPU_SECONDS from now on, in case the parent is no longer there to kill us."""
    limit_cpu_from_now(CPU_SECONDS)


def answer(path: Path) -> Iterator[list[str]]:
    """The lines for one file, but for the memory's end: that ends the process."""
    try:
        for part in read_file(path):
            yield [*part]
    except MemoryError:
        raise
    except UnreadableError as error:
        yield [str(error)]
    except OSError as error:
        yield [(error.strerror or "unreadable").lower()]
    except Exception as error:  # a parser may raise any type for a file that is broken
        yield [f"damaged ({type(error).__name__})"]
    else:
        yield [""]


def main() -> None:
    """Answer until the input ends. Exits with status 1 when memory runs out."""
    limit_process()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # the parent reads no warnings
    out = sys.stdout
    with redirect_stdout(sys.stderr):
        for line in sys.stdin:
            limit_cpu()
            try:
                for reply in answer(Path(json.loads(line))):
                    print(json.dumps(reply), file=out, flush=True)
            except MemoryError:
                sys.exit(1)


if __name__ == "__main__":
    main()
