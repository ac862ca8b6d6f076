"""External programs: finding them, asking their version, running them so that none outlives its parent."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from parafold.errors import SearchError

# Program -> its package in Debian, in conda and in pip ("" where pip has none), and what does without it.
_PYHMMER = "the engine pyhmmer needs no program"
_PACKAGES = {
    "jackhmmer": ("hmmer", "hmmer", "hmmer", _PYHMMER),
    "hmmbuild": ("hmmer", "hmmer", "hmmer", _PYHMMER),
    "hmmsearch": ("hmmer", "hmmer", "hmmer", _PYHMMER),
    "hhblits": ("hhsuite", "hhsuite", "", ""),
    "hhsearch": ("hhsuite", "hhsuite", "", ""),
    "kalign": ("kalign", "kalign3", "", ""),
    "mmseqs": ("mmseqs2", "mmseqs2", "", ""),
}

# How to make the program print its version, and where that stands.
_BANNERS = {
    "jackhmmer": (("-h",), r"HMMER (\S+)"),
    "hmmbuild": (("-h",), r"HMMER (\S+)"),
    "hmmsearch": (("-h",), r"HMMER (\S+)"),
    "hhblits": (("-h",), r"HHblits (\d[\w.]*\w)"),
    "hhsearch": (("-h",), r"HHsearch (\d[\w.]*\w)"),
    "kalign": (("--version",), r"(?i)kalign (?:version )?(\d[\w.]*\w)"),
    "mmseqs": (("version",), r"(\S+)"),
}

# What stands between the program and its parent, in an interpreter that starts in 20 ms. Its standard input
# is a pipe that only the parent holds: it ends when the parent does, however that dies, and then the whole
# process group goes, the programs that a wrapper script started too.
_SUPERVISOR = """
import _thread, os, resource, signal, sys
limit, program, *arguments = sys.argv[1:]
child = os.fork()
if not child:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        if int(limit):
            hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
            soft = int(limit) if hard == resource.RLIM_INFINITY else min(int(limit), hard)
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        os.execv(program, [program, *arguments])
    except OSError as error:
        os.write(2, f"cannot be started ({error.strerror})".encode())
    os._exit(126)
def watch():
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)
_thread.start_new_thread(watch, ())
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.killpg(0, signal.SIGTERM)
os._exit(status if status >= 0 else 128 - status)
"""

_TAIL_BYTES = 4096
_SHOWN_LETTERS = 300
_BANNER_SECONDS = 60
_MIN_FREE_BYTES = 1 << 20


def find_program(name: str) -> Path:
    """Where a program is: on the PATH, or beside the running Python.

    Raises:
        SearchError: nowhere, with the ways to get it.
    """
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found:
        return Path(found).absolute()
    debian, conda, pip, instead = _PACKAGES.get(name, ("", "", "", ""))
    ways = [f"Debian: apt install {debian}", f"conda: conda install -c conda-forge -c bioconda {conda}"]
    ways.append(f"pip: pip install {pip}" if pip else "pip has no package of it")
    remedy = f"install it ({'; '.join(ways)})" if debian else "install it"
    raise SearchError(
        f"the program {name} is not installed, or not on the PATH; {remedy}{instead and ', or do without: '}"
        f"{instead}"
    )


def program_version(name: str) -> str:
    """The version that a program prints, "3.3.2"; it is asked once.

    Raises:
        SearchError: it is not installed, or does not tell.
    """
    path = find_program(name)
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise SearchError(f"{path}: cannot be read ({error.strerror}); install {name} again") from error
    return _version(name, path, changed)


@functools.cache
def _version(name: str, path: Path, changed: int) -> str:
    arguments, pattern = _BANNERS.get(name, (("--version",), r"(\d[\w.]*\w)"))
    printed = run_program([path, *arguments], what=f"asking {path} for its version", timeout=_BANNER_SECONDS)
    found = re.search(pattern, printed.stdout)
    if not found:
        raise SearchError(f"{path}: does not tell its version; is it {name}? install it again")
    return found.group(1)


def run_program(
    arguments: Sequence[str | Path],
    *,
    what: str,
    timeout: float | None = None,
    memory: int | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, without a shell and without standard input.

    It runs in a process group of its own, which is killed when this call is left in any way and when this
    process dies in any way.

    Args:
        arguments: the program's name or path, then its arguments.
        what: what is being done to what, "jackhmmer of T1 in uniref90"; errors begin with it.
        timeout: seconds after which it is stopped.
        memory: bytes of data that each of its processes may hold; macOS does not enforce it.
        cwd: the folder to run in.

    Returns what `subprocess.run` does; `stdout` holds the beginning and the end of all that it printed, on
    standard error as well.

    Raises:
        SearchError: it is not installed, failed, was killed, or took too long; with its last words.
    """
    program = find_program(str(arguments[0]))
    command = [sys.executable, "-I", "-S", "-c", _SUPERVISOR, str(memory or 0), str(program)]
    status = None
    try:
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                [*command, *map(str, arguments[1:])],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                start_new_session=True,
            )
            try:
                status = process.wait(timeout)
            finally:
                if status != 0:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                if process.stdin:
                    process.stdin.close()
            printed = _printed(output)
    except subprocess.TimeoutExpired:
        raise SearchError(
            f"{what}: {program.name} was stopped after {timeout:g} seconds; give it more time or less to do"
        ) from None
    except (OSError, ValueError) as error:
        raise SearchError(f"{what}: {program.name} cannot be run ({error}); check the paths") from error
    if status:
        raise SearchError(f"{what}: {program.name} {_death(status)}{_full_disk()}{_last_words(printed)}")
    return subprocess.CompletedProcess(list(map(str, arguments)), 0, printed, "")


def _printed(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(0)
    data = output.read(_TAIL_BYTES)
    if size > 2 * _TAIL_BYTES:
        data += b"\n...\n"
        output.seek(size - _TAIL_BYTES)
    return (data + output.read(_TAIL_BYTES)).decode(errors="replace")


def _death(status: int) -> str:
    """How a failed program ended. A shell, and so a wrapper script, tells a signal as 128 and its number."""
    number = -status if status < 0 else status - 128
    if number == signal.SIGKILL:
        return "was killed (SIGKILL), perhaps the machine ran out of memory"
    if number in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS):
        name = signal.Signals(number).name
        return f"was killed ({name}), perhaps it ran out of memory or reads a damaged file"
    if 0 < number < signal.NSIG:
        return f"was killed (signal {number})"
    return f"failed (exit code {status})"


def _full_disk() -> str:
    """Programs seldom say it, and what they say is lost for the same reason."""
    folder = tempfile.gettempdir()
    full = shutil.disk_usage(folder).free < _MIN_FREE_BYTES
    return f", the disk of {folder} is full; free some space or set TMPDIR to another folder" if full else ""


def _last_words(printed: str) -> str:
    lines = [line for line in map(str.strip, printed.splitlines()) if line]
    words = " / ".join(lines[-3:])
    shown = "".join(letter if letter.isprintable() else " " for letter in words)
    return f": {shown[-_SHOWN_LETTERS:]}" if shown else ""
