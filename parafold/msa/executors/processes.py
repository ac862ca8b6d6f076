"""Many processes on this machine, each told its next task when it has finished one.

The workers are programs of their own (`parafold.msa.worker`), not forks: they are safe beside JAX and threads, and
need no `if __name__ == "__main__"` in the user's script.
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

from parafold import errors
from parafold.machine import usable_cpus
from parafold.errors import SearchError
from parafold.msa.executors.base import Executor
from parafold.msa.plan import Plan

# A worker that dies (killed, out of memory) costs its task one of these.
_ATTEMPTS = 3


class ProcessExecutor(Executor):
    """`workers` processes (as many as there are usable cores, unless given)."""

    def __init__(self, workers: int | None = None) -> None:
        super().__init__(max(1, workers or usable_cpus()))
        self._workers: list[_Worker] = []

    def start(self, folder: Path) -> None:
        assert self.workers is not None
        while len(self._workers) < self.workers:
            self._workers.append(_Worker(folder))

    def run(self, folder: Path, tasks: Sequence[int]) -> Iterator[int]:
        waiting = deque(tasks)
        attempts: Counter[int] = Counter()
        if not self._workers:
            assert self.workers is not None
            self.workers = min(self.workers, len(tasks))
            self.start(folder)
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker.answers, selectors.EVENT_READ, worker)
                if waiting:
                    worker.give(waiting.popleft())
            while any(worker.task is not None for worker in self._workers):
                for key, _ in selector.select():
                    worker: _Worker = key.data
                    number = worker.task
                    if worker.finished():
                        yield worker.done()
                    else:
                        selector.unregister(worker.answers)
                        self._workers.remove(worker)
                        if number is not None:
                            attempts[number] += 1
                            if attempts[number] == _ATTEMPTS:
                                _give_up(folder, number, worker)
                            waiting.appendleft(number)
                        worker.end()
                        if waiting:
                            worker = _Worker(folder)
                            self._workers.append(worker)
                            selector.register(worker.answers, selectors.EVENT_READ, worker)
                    if waiting:
                        worker.give(waiting.popleft())

    def close(self) -> None:
        while self._workers:
            self._workers.pop().end()


class _Worker:
    """One worker process and the task that it is at."""

    def __init__(self, folder: Path) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "parafold.msa.worker", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Each worker is one of many: libraries in it must not start threads of their own.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
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
        return self._answer.endswith(b"\n")

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

    def last_words(self) -> str:
        code = self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}" + (", probably for lack of memory" if name == "SIGKILL" else "")
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"ended with code {code}" + (f": {lines[-1]}" if lines else "")

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            with contextlib.suppress(OSError):
                assert stream is not None
                stream.close()


def _give_up(folder: Path, number: int, worker: _Worker) -> None:
    raise SearchError(
        f"searching {Plan.load(folder).task_name(number)} ended its process {_ATTEMPTS} times "
        f"({worker.last_words()}); use fewer workers, or shards of less size. What was finished is kept."
    )
