"""The folder in which an unfinished search works: one process at a time, without what killed ones left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from parafold import files


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    try:
        temporary = tempfile.TemporaryDirectory(prefix="parafold-", ignore_cleanup_errors=True)
    except OSError as error:
        raise files.output_error("the folder of temporary files", error) from error
    with temporary as folder:
        yield Path(folder)


@contextlib.contextmanager
def locked(folder: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """One process at a time works on a search."""
    path = folder / "lock"
    with contextlib.ExitStack() as stack:
        while True:
            files.make_folder(folder)
            try:
                handle = stack.enter_context(path.open("a"))
            except FileNotFoundError:
                continue  # who had it has finished just now, and taken the folder away
            except OSError as error:
                raise files.output_error(path, error) from error
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                warn(f"another process is at the same search (see {folder}); waiting for it")
                fcntl.flock(handle, fcntl.LOCK_EX)
            except OSError:
                yield  # a file system without locks: the work may be done twice then, but not wrongly
                return
            with contextlib.suppress(FileNotFoundError):  # a lock on a file that is gone locks nobody out
                if path.stat().st_ino == os.fstat(handle.fileno()).st_ino:
                    break
        # What a killed run was writing.
        remove_litter(folder)
        try:
            yield
        except BaseException:
            # What the workers were at.
            remove_litter(folder)
            raise


def remove_litter(folder: Path) -> None:
    for litter in folder.rglob(files.UNFINISHED):
        with contextlib.suppress(OSError):
            litter.unlink()
