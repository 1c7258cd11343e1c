"""Small file operations that a kill at any moment leaves whole."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    """Replace a file's content in one step."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    temporary.replace(path)


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold a folder's lock; yields the descriptor, which a child process may inherit to keep the lock.

    The folder is made if it is missing, and may be removed while the lock is held; if it ends empty it is removed.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Whoever held the lock before may have removed the folder: then this one is no longer the folder.
            if folder.exists() and folder.stat().st_ino == os.fstat(descriptor).st_ino:
                try:
                    yield descriptor
                finally:
                    with suppress(OSError):
                        folder.rmdir()
                return
        finally:
            os.close(descriptor)
