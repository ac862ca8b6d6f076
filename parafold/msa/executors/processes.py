"""Many processes on this machine, each told its next task when it has finished one.

The workers are programs of their own (`parafold.msa.worker`), not forks: they are safe beside JAX and
threads, and need no `if __name__ == "__main__"` in the user's script.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from parafold import errors, files
from parafold.errors import SearchError
from parafold.machine import usable_cpus
from parafold.msa.executors.base import Executor
from parafold.msa.plan import Plan

# A worker that dies (killed, out of memory) costs its task one of these.
_ATTEMPTS = 3
_FOR_LACK_OF_MEMORY = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)


class ProcessExecutor(Executor):
    """`workers` processes (as many as there are usable cores, unless given)."""

    def __init__(self, workers: int | None = None) -> None:
        super().__init__(max(1, workers or usable_cpus()))
        self._workers: list[_Worker] = []
        self._folder: Path | None = None

    def start(self, folder: Path) -> None:
        assert self.workers is not None
        self._start(folder, self.workers)

    def _start(self, folder: Path, count: int) -> None:
        if folder != self._folder:
            self.close()
        self._folder = folder
        while len(self._workers) < count:
            self._workers.append(_Worker(folder))

    def run(self, folder: Path, tasks: Sequence[int]) -> Iterator[int]:
        waiting = deque(tasks)
        attempts: Counter[int] = Counter()
        assert self.workers is not None
        self._start(folder, min(self.workers, len(tasks)))
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker.answers, selectors.EVENT_READ, worker)
                if waiting:
                    worker.give(waiting.popleft())
            while any(worker.task is not None for worker in self._workers):
                for key, _ in selector.select():
                    worker: _Worker = key.data
                    number = worker.task
                    done: int | None = None
                    if worker.finished():
                        done = worker.done()
                    else:
                        selector.unregister(worker.answers)
                        self._workers.remove(worker)
                        end = worker.end()
                        if number is not None:
                            attempts[number] += 1
                            if attempts[number] == _ATTEMPTS:
                                raise _hopeless(folder, number, end)
                            waiting.appendleft(number)
                        if waiting:
                            worker = _Worker(folder)
                            self._workers.append(worker)
                            selector.register(worker.answers, selectors.EVENT_READ, worker)
                    if waiting:
                        worker.give(waiting.popleft())
                    # Its next task does not wait for what is done with this one.
                    if done is not None:
                        yield done

    def close(self) -> None:
        while self._workers:
            self._workers.pop().end()


class _Worker:
    """One worker process and the task that it is at."""

    def __init__(self, folder: Path) -> None:
        try:
            self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 -- closed by `end`
        except OSError as error:
            raise files.output_error("the folder of temporary files", error) from error
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "parafold.msa.worker", str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                # Each worker is one of many: libraries in it must not start threads of their own.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
        except OSError as error:
            self._log.close()
            raise SearchError(f"a worker cannot be started ({error.strerror}); use fewer workers") from error
        assert self._process.stdout is not None
        self.answers: IO[bytes] = self._process.stdout
        self.task: int | None = None
        self._answer = b""

    def give(self, task: int) -> None:
        assert self._process.stdin is not None
        self.task = task
        with contextlib.suppress(BrokenPipeError):  # it died meanwhile: its answers have ended
            self._process.stdin.write(f"{task}\n".encode())
            self._process.stdin.flush()

    def finished(self) -> bool:
        """Whether it answered; otherwise it has died."""
        self._answer = self.answers.readline()
        if self._answer.endswith(b"\n"):
            return True
        # How it ended is known a moment after its answers have ended.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        return False

    def done(self) -> int:
        """The number of the task that was answered.

        Raises what the task raised.
        """
        answer = json.loads(self._answer)
        self.task = None
        if "error" in answer:
            kind, _, message = answer["error"].partition(": ")
            raise getattr(errors, kind, SearchError)(message)
        return answer["task"]

    def end(self) -> str:
        """Kills it, unless it has ended; returns how it did."""
        self._process.kill()
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(OSError):
                assert stream is not None
                stream.close()
        last = f": {lines[-1]}" if lines else ""
        if code < 0:
            memory = ", probably for lack of memory" if -code in _FOR_LACK_OF_MEMORY else ""
            return f"killed by {signal.Signals(-code).name}{memory}{last}"
        return f"ended with code {code}{last}"


def _hopeless(folder: Path, number: int, end: str) -> SearchError:
    return SearchError(
        f"searching {Plan.load(folder).task_name(number)} ended its process {_ATTEMPTS} times ({end}); "
        "use fewer workers, or give them more memory (--max-memory). What was finished is kept."
    )
