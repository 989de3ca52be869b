"""Reads and checks a large file in pieces, on several threads: both release the interpreter."""

import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from moss_tp.errors import CheckpointError

PIECE_BYTES = 16 << 20
_MIN_THREADS = 2  # so that one reads while another one checks

Buffer = Any  # a writable memoryview of bytes


def read_pieces(
    file: Path,
    checksums: Sequence[int],
    size: int,
    target: Callable[[int, int], Buffer],
    num_threads: int,
) -> None:
    """Reads `size` bytes, each piece into the `target` of its start and stop; `checksums` are the
    pieces' CRC-32.

    Raises CheckpointError, naming the file, for a piece that is cut or broken.
    """
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        starts = range(0, size, PIECE_BYTES)
        if len(starts) != len(checksums):
            raise CheckpointError(f"{file} has {len(checksums)} checksums for {len(starts)} pieces")

        def read(number: int) -> None:
            start = starts[number]
            buffer = target(start, min(start + PIECE_BYTES, size))
            _fill(descriptor, buffer, start, file)
            if zlib.crc32(buffer) != checksums[number]:
                raise CheckpointError(
                    f"{file} is broken at bytes {start} to {start + len(buffer)}: its checksum "
                    "differs; make it again with `moss shard`"
                )

        with ThreadPoolExecutor(max(_MIN_THREADS, num_threads)) as pool:
            for done in [pool.submit(read, number) for number in range(len(starts))]:
                try:
                    done.result()
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
    finally:
        os.close(descriptor)


def _fill(descriptor: int, buffer: Buffer, start: int, file: Path) -> None:
    done = 0
    while done < len(buffer):
        try:
            count = os.preadv(descriptor, [buffer[done:]], start + done)
        except OSError as error:
            raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
        if count == 0:
            raise CheckpointError(f"{file} is cut off at byte {start + done}")
        done += count
