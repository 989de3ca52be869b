"""Which files compiled code depends on, and the directory that holds it on disk.

Numba itself notices only a change in the file of the compiled function, not in what that function
calls. So a package that compiles kernels registers itself; its code is kept in a directory named
after a digest of all its files and of `moss_tp.native`. Kernels call only functions of those two.
The digest does not depend on what else is imported, or in which order.
"""

import hashlib
import os
import tempfile
from functools import cache
from pathlib import Path

_NATIVE = Path(__file__).parent
_registered: set[Path] = set()


def register_sources(path: str | Path) -> None:
    """A package's folder, with all folders in it, or a single file: it compiles kernels."""
    _registered.add(Path(path).resolve())


def cache_dir(source: str | Path) -> str:
    """Where the compiled functions of the file `source` are kept.

    Raises RuntimeError for a file that no package registered.
    """
    file = Path(source).resolve()
    owners = [path for path in (file, *file.parents) if path in _registered]
    if not owners:
        raise RuntimeError(f"{file} compiles kernels but is not registered, see register_sources")
    return _cache_dir(owners[-1])


@cache
def _cache_dir(registered: Path) -> str:
    """A fresh directory, lost at exit, where the user's cache cannot be written."""
    base = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    path = Path(base).expanduser() / "moss" / f"native-{_digest(_NATIVE, registered)}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return str(path)
    except OSError:
        return tempfile.mkdtemp(prefix="moss-native-")


def _digest(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(path.parent)}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
