"""Tasks as the elements of a Slurm job array, submitted through submitit.

Each element takes the next task that no other has taken, so that those which start early do the work of those
that still wait in the queue. The plan's folder, the databases and the Python environment must be where the
cluster's nodes see them under the same paths.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from parafold import errors, files
from parafold.errors import ParafoldError, SearchError
from parafold.msa.executors.base import Executor
from parafold.msa.plan import Plan, result_path
from parafold.msa.worker import is_done, limit_memory, run_task

_BY_HAND = "or go by hand: `parafold msa plan`, `parafold msa worker` on each machine, `parafold msa merge`"
_WORKERS = 16
# Reasons for waiting that no waiting ends.
_HOPELESS = ("BadConstraints", "PartitionNodeLimit", "PartitionTimeLimit", "JobHeldUser", "JobHeldAdmin")
_ACTIVE = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED", "RESIZING", "STOPPED")
# Slurm is asked at each so-manieth look into the folder.
_ASK = 5
# Seconds: without an answer from Slurm; until a network file system shows what another machine has written.
_SILENCE, _LAG = 600.0, 30.0


class SlurmExecutor(Executor):
    """A job array of `workers` elements of one core each (16 unless given, never more than tasks).

    Elements that die are replaced as long as that brings results. An array that a killed search left behind
    is cancelled when the search starts again.

    Args:
        partition: by default Slurm's own.
        minutes: time limit of each element.
        memory: bytes that each element asks for; by default Slurm's own rule.
        extra: other options of sbatch, `{"account": "lab", "qos": "short"}`.
        poll: seconds between looks into the plan's folder.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        partition: str | None = None,
        minutes: int = 24 * 60,
        memory: int | None = None,
        extra: Mapping[str, str] | None = None,
        poll: float = 1.0,
    ) -> None:
        super().__init__(workers or _WORKERS)
        self._partition = partition
        self._minutes = minutes
        self._memory = memory
        self._extra = dict(extra or {})
        self._poll = poll
        self._array: _Array | None = None

    def run(self, folder: Path, tasks: Sequence[int]) -> Iterator[int]:
        _check_installed()
        folder = folder.absolute()
        name = f"parafold-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
        _slurm("scancel", "--quiet", f"--name={name}", f"--user={os.getuid()}")
        waiting = list(tasks)
        try:
            while waiting:
                before = len(waiting)
                self._array = self._submit(folder, name, waiting)
                for number in self._finished(self._array, folder, waiting):
                    waiting.remove(number)
                    yield number
                if len(waiting) == before:
                    raise SearchError(
                        f"Slurm job {self._array.id} ended without results ({self._array.last_words()}); its "
                        f"logs are in {self._array.logs}. What was finished is kept."
                    )
                self.close()
        finally:
            self.close()

    def close(self) -> None:
        if self._array is not None:
            self._array.cancel()
            self._array = None

    def _submit(self, folder: Path, name: str, tasks: Sequence[int]) -> _Array:
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        place = files.make_folder(folder / "slurm" / secrets.token_hex(4))
        for part in ("taken", "errors"):
            files.make_folder(place / part)
        slurm = submitit.SlurmExecutor(place / "logs")
        options: dict[str, object] = {"job_name": name, "time": self._minutes, "cpus_per_task": 1}
        if self._partition:
            options["partition"] = self._partition
        if self._memory:
            options["mem"] = f"{max(1, self._memory >> 20)}M"
        assert self.workers is not None
        count = min(self.workers, len(tasks))
        complaints = io.StringIO()
        try:
            slurm.update_parameters(**options, additional_parameters=self._extra)
            with _outside_jobs(), contextlib.redirect_stderr(complaints):
                shares = zip(*[(folder, place, list(tasks), index) for index in range(count)], strict=True)
                jobs = slurm.map_array(work, *shares)
        except (FailedJobError, FailedSubmissionError, OSError) as error:
            said = "; ".join(str(error).split("\n"))
            raise SearchError(
                f"Slurm does not take the job ({said}); mend its options, {_BY_HAND}"
            ) from error
        return _Array(jobs[0].job_id.partition("_")[0], place)

    def _finished(self, array: _Array, folder: Path, waiting: Sequence[int]) -> Iterator[int]:
        """The tasks as they finish, until all have or no element is left."""
        missing = set(waiting)
        asked, ended = 0.0, None
        while missing:
            names = {path.name for path in result_path(folder, 0).parent.glob("*.jsonl")}
            done = {number for number in missing if result_path(folder, number).name in names}
            yield from sorted(done)
            missing -= done
            array.raise_error()
            now = time.monotonic()
            if ended is not None and now > ended + (_LAG if array.succeeded else self._poll):
                return
            if ended is None and now > asked + _ASK * self._poll:
                asked = now
                if not array.alive():
                    ended = time.monotonic()
            if missing and not done:
                time.sleep(self._poll)


class _Array:
    """A job array that was submitted; `place` is its folder within the plan's."""

    def __init__(self, job: str, place: Path) -> None:
        self.id = job
        self.logs = place / "logs"
        self._errors = place / "errors"
        self._states: Counter[str] = Counter()
        self._heard = time.monotonic()

    def alive(self) -> bool:
        """Asks Slurm whether an element waits or runs.

        Raises:
            SearchError: it waits for ever, or Slurm no longer answers.
        """
        answer = _slurm(
            "squeue", "--noheader", "--array", "--states=all", f"--jobs={self.id}", "--format=%T|%r"
        )
        if answer.returncode and "Invalid job id" not in answer.stderr:
            if time.monotonic() > self._heard + _SILENCE:
                raise SearchError(
                    f"Slurm no longer answers ({answer.stderr.strip()}); search again when it does. What was "
                    "finished is kept."
                )
            return True
        self._heard = time.monotonic()
        elements = [line.partition("|") for line in answer.stdout.split()]
        # Slurm forgets ended jobs after some minutes.
        if elements:
            self._states = Counter(state for state, _, _ in elements)
        for state, _, reason in elements:
            if state == "PENDING" and reason in _HOPELESS:
                raise SearchError(
                    f"Slurm job {self.id} would wait for ever ({reason}); change its partition, time limit "
                    f"or memory, {_BY_HAND}"
                )
        if self._states["CANCELLED"]:
            raise SearchError(f"Slurm job {self.id} was cancelled; search again. What was finished is kept.")
        return any(state in _ACTIVE for state, _, _ in elements)

    @property
    def succeeded(self) -> bool:
        """Whether all elements ended well, when Slurm was last asked."""
        return set(self._states) == {"COMPLETED"}

    def raise_error(self) -> None:
        """Raises what a task raised."""
        for path in sorted(self._errors.glob("*.json")):
            kind, message = json.loads(path.read_bytes())
            raise getattr(errors, kind, SearchError)(message)

    def last_words(self) -> str:
        """How its elements ended, and what was last written to a log of errors."""
        states = ", ".join(f"{count} {state}" for state, count in self._states.items())
        logs = sorted(self.logs.glob("*_log.err"), key=lambda path: path.stat().st_mtime)
        text = "\n".join(path.read_text(errors="replace") for path in logs)
        lines = [line for line in text.splitlines() if line.strip()]
        said = " / ".join(lines[-3:])[-500:] if logs else "no log: do the nodes see this folder?"
        return ": ".join(filter(None, (states, said)))

    def cancel(self) -> None:
        """Ends the elements, and waits a moment for their processes to be gone."""
        _slurm("scancel", "--quiet", self.id)
        for _ in range(50):
            if not _slurm("squeue", "--noheader", f"--jobs={self.id}").stdout.strip():
                break
            time.sleep(0.1)


def work(folder: Path, place: Path, tasks: Sequence[int], index: int) -> None:
    """What element `index` of the array does on its node: one task after another that no other has taken."""
    # submitit ignores SIGTERM, and cancelled jobs would go on until Slurm kills them, half a minute later.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    number = -1
    try:
        limit_memory(Plan.load(folder).memory)
        for number in tasks:
            if _take(place / "taken" / str(number), index) and not is_done(folder, number):
                run_task(folder, number)
    except ParafoldError as error:
        _leave_error(place, number, type(error).__name__, str(error))
    except MemoryError:
        message = "out of memory; give workers more (--max-memory) or use fewer"
        _leave_error(place, number, "SearchError", message)


def _leave_error(place: Path, number: int, kind: str, message: str) -> None:
    files.atomic_write(place / "errors" / f"{number}.json", json.dumps([kind, message]))


def _take(mark: Path, index: int) -> bool:
    """Whether the task is for element `index`: nobody has taken it, or the same element before Slurm started
    it again. A symbolic link is made with its content in one step, on network file systems too."""
    try:
        mark.symlink_to(str(index))
    except FileExistsError:
        return str(mark.readlink()) == str(index)
    return True


@contextlib.contextmanager
def _outside_jobs() -> Iterator[None]:
    """Hides that this process is within a Slurm job: the elements would take its variables for theirs."""
    hidden = {name: value for name, value in os.environ.items() if name.startswith("SLURM_")}
    hidden.pop("SLURM_CONF", None)
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def _check_installed() -> None:
    for program in ("sbatch", "srun", "squeue", "scancel"):
        if not shutil.which(program):
            raise SearchError(
                f"Slurm's {program} is not on the PATH; run this where jobs are submitted, {_BY_HAND}"
            )
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise SearchError("submitit is not installed; pip install 'parafold[slurm]'") from error


def _slurm(*command: str) -> subprocess.CompletedProcess[str]:
    """Ask Slurm; it gives up by itself where the controller does not answer."""
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
