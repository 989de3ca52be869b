"""A loss of power: of a server's append-only files only what it has synced is left.

A library that is loaded into the server notes, at each fsync and fdatasync that succeeds, how large
the file was when it began. To lose power is to kill the server and cut its files to those sizes.
"""

import subprocess
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int noted(const char *name, int fd) {
    struct stat before;
    int known = fstat(fd, &before) == 0;
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = real(fd);
    const char *directory = getenv("NOTE_SYNCED_IN");
    if (result != 0 || !known || !directory || !S_ISREG(before.st_mode)) return result;
    char path[4096], text[32];
    snprintf(path, sizeof path, "%s/%lu", directory, (unsigned long)before.st_ino);
    int length = snprintf(text, sizeof text, "%020lld", (long long)before.st_size);
    int note = open(path, O_CREAT | O_WRONLY, 0600);
    if (note < 0 || pwrite(note, text, length, 0) != length) abort();
    close(note);
    return result;
}
int fsync(int fd) { return noted("fsync", fd); }
int fdatasync(int fd) { return noted("fdatasync", fd); }
"""


class PowerLoss:
    """Notes in `directory` what a server syncs that is started with `environment`.

    Needs a C compiler, `cc`.
    """

    def __init__(self, directory: Path) -> None:
        self._notes = directory / "notes"
        self._notes.mkdir()
        source, library = directory / "noted.c", directory / "noted.so"
        source.write_text(_SOURCE)
        command = ["cc", "-shared", "-fPIC", "-O1", str(source), "-o", str(library), "-ldl"]
        subprocess.run(command, check=True)
        self.environment = {"LD_PRELOAD": str(library), "NOTE_SYNCED_IN": str(self._notes)}

    def cut(self, data_dir: Path) -> int:
        """Cuts the append-only files of a killed server; returns how many bytes were lost."""
        num_lost = 0
        for file in (data_dir / "appendonlydir").glob("*.incr.aof"):
            note = self._notes / str(file.stat().st_ino)
            synced = int(note.read_text()) if note.exists() else 0
            num_lost += max(0, file.stat().st_size - synced)
            with file.open("r+b") as opened:
                opened.truncate(min(synced, file.stat().st_size))
        return num_lost
