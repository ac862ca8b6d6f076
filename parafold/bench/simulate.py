"""How long a search takes on a machine that is not there: tasks, workers and one shared disk, event by event.

A task reads and computes at the same time, so alone it takes the longer of its CPU seconds and its share of
the disk. Readers share the disk fairly: who needs less than an equal share leaves the rest to the others.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

SCHEDULES = ("longest-first", "static")


@dataclass(frozen=True)
class Task:
    """One piece of work that one worker does without interruption.

    Attributes:
        cpu: CPU seconds.
        bytes: read from the disk.
        database: whose piece it is; the static schedule gives all of a database to one worker.
        splittable: False for a whole database of an engine that cannot search parts; it starts first.
        estimate: what the scheduler believes it costs, in any unit; by default its CPU seconds.
        source: what it reads; a later task that reads the same may find it in the page cache.
    """

    cpu: float
    bytes: float = 0.0
    database: str = ""
    splittable: bool = True
    estimate: float | None = None
    source: str | None = None

    @property
    def expected(self) -> float:
        return self.cpu if self.estimate is None else self.estimate


@dataclass(frozen=True)
class Machine:
    """What the tasks run on.

    Attributes:
        workers: processes, each with a processor of its own.
        startup: seconds until a worker takes its first task.
        bandwidth: bytes a second of the disk that all share.
        page_cache: bytes of what was read last that are read again for nothing.
        crowding: by how much of itself each further busy worker lengthens all computing (0.04 is 4 %).
    """

    workers: int
    startup: float = 0.0
    bandwidth: float = math.inf
    page_cache: float = 0.0
    crowding: float = 0.0

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"{self.workers} workers; give 1 or more")
        if not self.bandwidth > 0:
            raise ValueError(f"a bandwidth of {self.bandwidth} bytes a second; give more than 0")


@dataclass(frozen=True)
class Timeline:
    """Who did what when. The arrays have one entry a job: a task, or with the static schedule a database.

    Attributes:
        seconds: from the start to the end of everything, the serial parts included.
        start, end: seconds of each job, in the order in which the jobs were taken.
        worker: who did it.
        cpu: CPU seconds of each job.
        critical_path: the seconds that no number of workers would save.
        bytes_read: from the disk, without what the page cache held.
    """

    seconds: float
    start: Float[np.ndarray, "jobs"]
    end: Float[np.ndarray, "jobs"]
    worker: Int[np.ndarray, "jobs"]
    cpu: Float[np.ndarray, "jobs"]
    critical_path: float
    bytes_read: float
    machine: Machine

    @property
    def utilisation(self) -> float:
        """The share of all workers' time that was spent computing."""
        spent = self.machine.workers * self.seconds
        return float(self.cpu.sum()) / spent if spent else 1.0

    @property
    def disk_use(self) -> float:
        """The share of the time that the disk was needed at its full bandwidth."""
        if not self.bytes_read or math.isinf(self.machine.bandwidth):
            return 0.0
        return self.bytes_read / (self.machine.bandwidth * self.seconds)


def simulate(
    tasks: Iterable[Task],
    machine: Machine,
    *,
    schedule: str = "longest-first",
    before: float = 0.0,
    after: float = 0.0,
) -> Timeline:
    """Run the tasks on the machine. A free worker takes the next job of the queue.

    Args:
        schedule: "longest-first": the queue holds what cannot be split, then all other tasks, each by falling
            estimate. "static": it holds whole databases in the given order, whatever their size.
        before, after: seconds of the serial parts, planning and merging.

    Raises:
        ValueError: no such schedule.
    """
    jobs = queue(tasks, schedule)
    cpu = np.array([job.cpu for job in jobs], float)
    start, end = np.zeros(len(jobs)), np.zeros(len(jobs))
    taker = np.zeros(len(jobs), int)
    cache = _PageCache(machine.page_cache)
    running = _Running(min(machine.workers, max(len(jobs), 1)), machine)
    begin = before + (machine.startup if jobs else 0.0)
    now, waiting, bytes_read = begin, 0, 0.0
    while waiting < len(jobs) or running.count:
        while waiting < len(jobs) and running.free:
            to_read = cache.missing(jobs[waiting])
            bytes_read += to_read
            taker[waiting] = running.take(waiting, jobs[waiting].cpu, to_read)
            start[waiting] = now
            waiting += 1
        passed, done = running.next_end()
        now += passed
        for job in done:
            end[job] = now
            cache.keep(jobs[job])
    alone = max((max(job.cpu, job.bytes / machine.bandwidth) for job in jobs), default=0.0)
    return Timeline(now + after, start, end, taker, cpu, begin + alone + after, bytes_read, replace(machine))


def queue(tasks: Iterable[Task], schedule: str) -> list[Task]:
    """The jobs in the order in which workers take them.

    Raises:
        ValueError: no such schedule.
    """
    tasks = list(tasks)
    if schedule == "longest-first":
        return sorted(tasks, key=lambda task: (task.splittable, -task.expected))
    if schedule != "static":
        raise ValueError(f"no schedule {schedule!r}; the schedules are {', '.join(SCHEDULES)}")
    lanes: dict[str, list[Task]] = {}
    for task in tasks:
        lanes.setdefault(task.database, []).append(task)
    return [
        Task(sum(task.cpu for task in lane), sum(task.bytes for task in lane), name)
        for name, lane in lanes.items()
    ]


def least_seconds(
    tasks: Sequence[Task], machine: Machine, *, before: float = 0.0, after: float = 0.0
) -> float:
    """No schedule is faster: the longest task, all computing shared by all workers, all bytes at full
    bandwidth. Without a page cache."""
    if not tasks:
        return before + after
    longest = max(max(task.cpu, task.bytes / machine.bandwidth) for task in tasks)
    shared = sum(task.cpu for task in tasks) / machine.workers
    disk = sum(task.bytes for task in tasks) / machine.bandwidth
    return before + machine.startup + max(longest, shared, disk) + after


class _Running:
    """The jobs in progress, one slot a worker. What is left of a job counts down from 1 to 0."""

    def __init__(self, workers: int, machine: Machine) -> None:
        self.machine = machine
        self.job = np.full(workers, -1)
        self.left = np.zeros(workers)
        self.cpu = np.ones(workers)
        self.bytes = np.zeros(workers)
        self.free = list(range(workers - 1, -1, -1))

    @property
    def count(self) -> int:
        return len(self.job) - len(self.free)

    def take(self, job: int, cpu: float, to_read: float) -> int:
        worker = self.free.pop()
        self.job[worker], self.left[worker] = job, 1.0
        # A job of no length ends as soon as it started; rates stay finite.
        self.cpu[worker], self.bytes[worker] = max(cpu, 1e-12), to_read
        return worker

    def next_end(self) -> tuple[float, list[int]]:
        """Go on until a job ends: the seconds that passed, and the jobs that ended."""
        busy = np.flatnonzero(self.job >= 0)
        rate = self._rates(busy)
        needed = self.left[busy] / rate
        passed = float(needed.min())
        # Jobs that end at the same moment but for rounding end together.
        ended = needed <= passed * (1 + 1e-12)
        self.left[busy] -= rate * passed
        slots = busy[ended]
        jobs = self.job[slots].tolist()
        self.job[slots] = -1
        self.free += sorted(slots.tolist(), reverse=True)
        return passed, jobs

    def _rates(self, busy: Int[np.ndarray, "busy"]) -> Float[np.ndarray, "busy"]:
        """The part of each job that is done in a second."""
        computing = 1 / (self.cpu[busy] * (1 + self.machine.crowding * (len(busy) - 1)))
        to_read = self.bytes[busy]
        wanted = computing * to_read
        if wanted.sum() <= self.machine.bandwidth:
            return computing
        share = fair_share(wanted, self.machine.bandwidth)
        return np.minimum(computing, share / np.maximum(to_read, 1e-300))


def fair_share(wanted: Float[np.ndarray, "readers"], bandwidth: float) -> float:
    """The most that one reader gets when `bandwidth` is shared fairly among readers that want more of it than
    there is: who wants less gets what it wants, all others get the same."""
    ascending = np.sort(wanted)
    taken = np.concatenate(([0.0], np.cumsum(ascending[:-1])))
    shares = (bandwidth - taken) / np.arange(len(ascending), 0, -1)
    return float(shares[np.argmax(shares <= ascending)])


class _PageCache:
    """What was read last, whole sources, up to a size."""

    def __init__(self, size: float) -> None:
        self.size = size
        self.held: OrderedDict[str, float] = OrderedDict()

    def missing(self, job: Task) -> float:
        """The bytes that must come from the disk."""
        if job.source in self.held:
            self.held.move_to_end(job.source)
            return 0.0
        return float(job.bytes)

    def keep(self, job: Task) -> None:
        if job.source is None or job.bytes > self.size:
            return
        self.held[job.source] = job.bytes
        self.held.move_to_end(job.source)
        while sum(self.held.values()) > self.size:
            self.held.popitem(last=False)
