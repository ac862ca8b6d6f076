"""The program that talks to Ray for a `RayExecutor`, in JSON lines over its standard input and output:

    {"address": ..., "workers": ...}    {"cpus": ...}
    {"folder": ..., "tasks": [...]}     {"task": ...} for each, or {"error": [kind, message]}

It ends, and with it the cluster that it started, as soon as its input does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from parafold import errors, files
from parafold.errors import ParafoldError, SearchError
from parafold.msa.executors.ray_worker import do_task, pack
from parafold.msa.plan import Plan, result_path

# Seconds: until an address must answer; until a cluster must have let us in; for others' work to free a CPU;
# between looks at whether the input has ended.
_ANSWER, _CONNECT, _BUSY, _LOOK = 5.0, 60.0, 10.0, 0.25
# A Ray worker process that dies costs its task one of these.
_RETRIES = 3
# Tasks that wait at the cluster for a CPU, so that none idles while this process is told of a result.
_AHEAD = 2
# Only plans and results travel through Ray, and only where they must.
_STORE_BYTES = 100 << 20
# Unix sockets have short paths: Ray adds some 60 characters to its folder's.
_MAX_FOLDER = 40

Say = Callable[[dict[str, Any]], None]


def _main() -> None:
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        # What Ray prints must not be taken for answers.
        os.dup2(2, 1)

        def say(message: dict[str, Any]) -> None:
            with contextlib.suppress(BrokenPipeError):  # nobody listens any more
                print(json.dumps(message), file=answers)

        orders: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        ended = threading.Event()
        threading.Thread(target=_listen, args=(orders, ended), daemon=True).start()
        try:
            if first := orders.get():
                with _cluster(first["address"], first["workers"], say) as cpus:
                    say({"cpus": cpus})
                    workers = first["workers"] or cpus
                    # Where the cluster has more CPUs than asked for, only the number of tasks keeps to it.
                    limit = workers if workers < cpus else cpus + _AHEAD
                    while order := orders.get():
                        for number in _done(Path(order["folder"]), order["tasks"], limit, ended):
                            say({"task": number})
        except ParafoldError as error:
            say({"error": [type(error).__name__, str(error)]})


def _listen(orders: SimpleQueue[dict[str, Any] | None], ended: threading.Event) -> None:
    for line in sys.stdin:
        orders.put(json.loads(line))
    ended.set()
    orders.put(None)


@contextlib.contextmanager
def _cluster(address: str | None, workers: int, say: Say) -> Iterator[int]:
    """A connection to the cluster, or one started on this machine; yields its number of CPUs."""
    if not address:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        # Whoever can reach a cluster may run anything on it, unless it asks for a token. Ray would leave one
        # in the home folder; this one ends with the cluster. It must be set before Ray is imported.
        if "RAY_AUTH_MODE" not in os.environ:
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    import ray
    from ray.exceptions import RayError

    name = f"the Ray cluster at {address}" if address else "Ray on this machine"
    if address:
        _check_address(address)

    def give_up() -> None:
        message = f"{name} does not let us in after {_CONNECT:.0f} seconds; check it with `ray status`"
        say({"error": ["SearchError", message]})
        os._exit(1)

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with contextlib.ExitStack() as stack:
        watch = threading.Timer(_CONNECT, give_up)
        watch.daemon = True
        watch.start()
        stack.callback(watch.cancel)
        try:
            if address:
                ray.init(address=address, **quiet)
            else:
                folder = tempfile.TemporaryDirectory(
                    prefix="ray-", dir=_short_folder(), ignore_cleanup_errors=True
                )
                ray.init(
                    address="local",
                    num_cpus=workers,
                    num_gpus=0,
                    include_dashboard=False,
                    object_store_memory=_STORE_BYTES,
                    _temp_dir=stack.enter_context(folder),
                    **quiet,
                )
        except (RayError, OSError, RuntimeError, ValueError) as error:
            raise SearchError(f"{name} cannot be used: {_reason(error)}") from error
        watch.cancel()
        stack.callback(ray.shutdown)
        yield _cpus(name)


def _reason(error: BaseException) -> str:
    """Ray hides why it was not let in."""
    causes: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(" ".join(str(cause).split()))
        cause = cause.__cause__
    if any("authentication token" in text.lower() for text in causes):
        return "it asks for its token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to the token's file"
    return causes[0]


def _short_folder() -> str | None:
    """Where sockets may be: the folder for temporary files, unless its path is too long."""
    return None if len(tempfile.gettempdir()) <= _MAX_FOLDER - len("/ray-12345678") else "/tmp"


def _check_address(address: str) -> None:
    """Ray itself tries for minutes."""
    host, colon, port = address.rpartition("//")[2].rpartition(":")
    if address == "auto":
        return
    if not colon or not port.isdigit():
        raise SearchError(
            f"{address!r} is no address of a Ray cluster; give HOST:PORT, or 'auto' for this machine's"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER).close()
    except (OSError, OverflowError) as error:
        raise SearchError(
            f"no Ray cluster answers at {address} ({error}); give the address that `ray start --head` printed"
        ) from error


def _cpus(name: str) -> int:
    """The cluster's CPUs; one must be free, for Ray would wait for ever without a word."""
    import ray

    total = int(ray.cluster_resources().get("CPU", 0))
    if not total:
        raise SearchError(f"{name} has 0 CPUs for tasks; add a node with some: `ray start --num-cpus=...`")
    end = time.monotonic() + _BUSY
    while ray.available_resources().get("CPU", 0) < 1:
        if time.monotonic() > end:
            raise SearchError(
                f"{name} has {total} CPUs, none of them free; wait for other work, or add nodes"
            )
        time.sleep(_LOOK)
    return total


def _done(folder: Path, tasks: Sequence[int], limit: int, ended: threading.Event) -> Iterator[int]:
    """The tasks as they are done, at most `limit` at the cluster at a time; stops when the input ends."""
    import ray
    from ray.exceptions import RayError

    task = ray.remote(num_cpus=1, max_retries=_RETRIES)(do_task)
    digest = hashlib.sha256((folder / "plan.json").read_bytes()).hexdigest()
    waiting = deque(tasks)
    running: dict[Any, int] = {}
    # The plan's bytes at the cluster, once a node has not seen the folder; in a list, so that Ray does not
    # bring them to nodes that do.
    package: list[Any] = []
    while (waiting or running) and not ended.is_set():
        while waiting and len(running) < limit:
            number = waiting.popleft()
            running[task.remote(str(folder), digest, number, package)] = number
        for reference in ray.wait(list(running), timeout=_LOOK)[0]:
            number = running.pop(reference)
            try:
                outcome = ray.get(reference)
                if outcome.unseen and not package:
                    package.append(ray.put(pack(folder)))
            except RayError as error:
                said = " ".join(str(error).split())[:500]
                raise SearchError(
                    f"searching {Plan.load(folder).task_name(number)} failed on Ray ({said}); use fewer "
                    "workers, or smaller shards. What was finished is kept."
                ) from error
            if outcome.error:
                raise getattr(errors, outcome.error[0], SearchError)(outcome.error[1])
            if outcome.unseen:
                waiting.appendleft(number)
                continue
            if outcome.result:
                files.atomic_write(result_path(folder, number), outcome.result)
            yield number


if __name__ == "__main__":
    _main()
