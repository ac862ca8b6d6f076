"""Tasks on a Ray cluster: one of this machine that is started for the search, or an existing one.

Ray lives in a process of its own (`ray_driver`), which ends, and with it the cluster that was started, as
soon as this process does. So it does not change this process's signal handlers, fork it beside JAX, or print.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from parafold import errors
from parafold.errors import SearchError
from parafold.machine import usable_cpus
from parafold.msa.executors.base import Executor

# A cluster takes a second to end; one that hangs is killed.
_END_SECONDS = 20


class RayExecutor(Executor):
    """At most `workers` tasks at a time, of one CPU each.

    Nodes that see the plan's folder write results there; to others the plan travels, and results come back.
    All nodes need the databases under the same paths, and parafold.

    Args:
        workers: by default as many as there are usable cores, or as the existing cluster has CPUs.
        address: of an existing cluster, "10.0.0.1:6379"; "auto" for the one that this machine belongs to.
    """

    def __init__(self, workers: int | None = None, *, address: str | None = None) -> None:
        super().__init__(workers or (None if address else usable_cpus()))
        self._address = address
        self._driver: _Driver | None = None

    def start(self, folder: Path) -> None:
        if self._driver is None:
            if importlib.util.find_spec("ray") is None:
                raise SearchError("Ray is not installed; pip install 'parafold[ray]'")
            self._driver = _Driver(self._address, self.workers)
            if self.workers is None:
                self.workers = self._driver.cpus()

    def run(self, folder: Path, tasks: Sequence[int]) -> Iterator[int]:
        self.start(folder)
        assert self._driver is not None
        try:
            yield from self._driver.run(folder, tasks)
        finally:
            self.close()

    def close(self) -> None:
        if self._driver is not None:
            self._driver.end()
            self._driver = None


class _Driver:
    """The process that talks to Ray."""

    def __init__(self, address: str | None, workers: int | None) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by `end`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "parafold.msa.executors.ray_driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Ctrl-C in a terminal must reach this process only, which then ends the cluster in good order.
            start_new_session=True,
        )
        self._cpus = 0
        self._tell({"address": address, "workers": workers})

    def cpus(self) -> int:
        """How many CPUs the cluster has, once it is there."""
        if not self._cpus:
            self._cpus = self._answer()["cpus"]
        return self._cpus

    def run(self, folder: Path, tasks: Sequence[int]) -> Iterator[int]:
        self.cpus()
        self._tell({"folder": str(folder.absolute()), "tasks": list(tasks)})
        for _ in tasks:
            yield self._answer()["task"]

    def end(self) -> None:
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        # What the driver still has to say must not keep it from ending.
        process.stdout.close()
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self._log.close()

    def _tell(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died: there will be no answer, which tells why
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        """The next answer. Raises what a task, or the start, raised."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise SearchError(
                f"the process that talks to Ray ended ({self._last_words()}); search again. What was "
                "finished is kept."
            )
        answer = json.loads(line)
        if "error" in answer:
            kind, message = answer["error"]
            raise getattr(errors, kind, SearchError)(message)
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"code {code}" + (f": {lines[-1]}" if lines else "")
