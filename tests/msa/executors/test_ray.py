"""The Ray executor, on local clusters that it starts and on an existing one that this module starts."""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from small_plan import found, make_plan, processes, serially, wait_for

from parafold.errors import SearchError
from parafold.msa import demo_databases
from parafold.msa.executors.ray import RayExecutor
from parafold.msa.search import search

pytest.importorskip("ray")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


@pytest.fixture(scope="module")
def slow_plan(tmp_path_factory):
    """A plan whose nine tasks take a fifth of a second each, and what they find."""
    folder = tmp_path_factory.mktemp("slow")
    plan = make_plan(folder, queries=15, length=1500)
    return folder, plan, serially(shutil.copytree(folder, tmp_path_factory.mktemp("serial") / "plan"))


@pytest.fixture
def slow(slow_plan, tmp_path):
    folder, plan, expected = slow_plan
    return shutil.copytree(folder, tmp_path / "plan"), plan, expected


@pytest.fixture(scope="module")
def token():
    """What existing clusters ask for, as users give it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        yield


@pytest.fixture(scope="module")
def hidden():
    """A folder that the nodes of the existing cluster do not see."""
    with tempfile.TemporaryDirectory(prefix="hidden-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def address(hidden, token):
    """Where a cluster of two CPUs listens; where possible, another file system hides `hidden` from it."""
    command = start_command(cpus=2)
    if mounts_allowed():
        mount = f'mount -t tmpfs none "{hidden}" && exec "$0" "$@"'
        command = ["unshare", "--mount", "sh", "-c", mount, *command]
    yield from existing_cluster(command)


@pytest.fixture(scope="module")
def address_without_cpus(token):
    yield from existing_cluster(start_command(cpus=0))


def start_command(cpus: int) -> list[str]:
    small = ["--object-store-memory=100000000", "--include-dashboard=false", "--disable-usage-stats"]
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    return [*ray, "start", "--head", "--block", f"--num-cpus={cpus}", "--num-gpus=0", *small]


def existing_cluster(command: list[str]):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [*command, f"--port={port}", f"--temp-dir={folder}"]
        log = Path(folder) / "start.log"
        with log.open("wb") as output:
            head = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            wait_for(lambda: b"Ray runtime started" in log.read_bytes(), 60)
            found = re.search(r"Local node IP: (\S+)", log.read_text())
            assert found
            yield f"{found[1]}:{port}"
        finally:
            head.terminate()
            try:
                head.wait(20)
            finally:
                for process in processes(folder):
                    os.kill(process, signal.SIGKILL)


def mounts_allowed() -> bool:
    return not subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode


def ray_processes() -> set[int]:
    """Those of clusters that an executor started, and the program that talks to Ray."""
    return {process for word in ("/ray-", "ray_driver", "ray::") for process in processes(word)}


def busy_workers() -> list[int]:
    return processes("ray::do_task")


def test_finds_what_one_process_finds_although_a_worker_is_killed(slow, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder, plan, expected = slow
    before = ray_processes()
    with RayExecutor(2) as executor:
        running = executor.run(folder, plan.order)
        done = [next(running)]
        victims = busy_workers()
        os.kill(victims[0], signal.SIGKILL)
        assert sorted([*done, *running]) == sorted(plan.order)
    assert found(folder) == expected
    wait_for(lambda: ray_processes() <= before, 10)
    assert not (Path.home() / ".ray").exists()


def test_a_failing_task_ends_the_search_with_its_error(address, slow):
    folder, plan, _ = slow
    prepared = folder / "prepared" / "pyhmmer"
    prepared.write_bytes(prepared.read_bytes()[:-100])
    with (
        RayExecutor(1, address=address) as executor,
        pytest.raises(SearchError, match="prepared/pyhmmer: is damaged"),
    ):
        list(executor.run(folder, plan.order))


def test_nothing_outlives_a_killed_search(slow, tmp_path):
    folder, plan, expected = slow
    before = ray_processes()
    program = (
        "import sys; from pathlib import Path; from parafold.msa.executors.ray import RayExecutor\n"
        "for number in RayExecutor(2).run(Path(sys.argv[1]), list(map(int, sys.argv[2:]))): print(number)"
    )
    command = [sys.executable, "-u", "-c", program, folder, *map(str, plan.order)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as search_process:
        assert search_process.stdout
        assert search_process.stdout.readline()
        assert busy_workers()
        search_process.kill()
    wait_for(lambda: ray_processes() <= before, 10)
    assert all(hits == expected[number] for number, hits in found(folder).items())
    assert len(found(folder)) < len(plan.tasks)


def test_existing_cluster(address, tmp_path):
    queries = {"trp_cage": "NLYIQWLKDGGPSSGRPPPS"}
    executor = RayExecutor(address=address)
    ours = search(queries, demo_databases(), executor=executor, shards=2, cache=tmp_path / "cache")
    assert executor.workers == 2
    assert ours.alignments == search(queries, demo_databases(), executor="serial", cache=None).alignments


def test_nodes_that_do_not_see_the_plan(address, hidden, slow_plan):
    if not mounts_allowed():
        pytest.skip("only root may mount a file system over the plan's folder")
    folder, plan, expected = slow_plan
    folder = shutil.copytree(folder, hidden / "plan")
    for process in processes("raylet/raylet") + busy_workers():
        assert not Path(f"/proc/{process}/root{folder}").exists()
    with RayExecutor(2, address=address) as executor:
        assert sorted(executor.run(folder, plan.order)) == sorted(plan.order)
    assert found(folder) == expected
    assert not list(Path(tempfile.gettempdir()).glob("parafold-*/plan.json"))


def test_an_abandoned_search_frees_the_existing_cluster(address, slow):
    folder, plan, _ = slow
    with RayExecutor(2, address=address) as executor:
        running = executor.run(folder, plan.order)
        assert next(running) in plan.order
        running.close()
    wait_for(lambda: not busy_workers(), 5)
    assert len(found(folder)) < len(plan.tasks)


def test_a_cluster_without_cpus_is_refused(address_without_cpus, slow_plan):
    folder, plan, _ = slow_plan
    begin = time.monotonic()
    with (
        RayExecutor(address=address_without_cpus) as executor,
        pytest.raises(SearchError, match="has 0 CPUs"),
    ):
        list(executor.run(folder, plan.order))
    assert time.monotonic() - begin < 15


@pytest.mark.parametrize(
    ("address", "message"),
    [("127.0.0.1:1", "no Ray cluster answers"), ("nonsense", "is no address of a Ray cluster")],
)
def test_an_address_without_a_cluster_is_refused(address, message, slow_plan):
    folder, plan, _ = slow_plan
    with RayExecutor(address=address) as executor, pytest.raises(SearchError, match=message):
        list(executor.run(folder, plan.order))


def test_without_ray_the_way_to_get_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SearchError, match=r"pip install 'parafold\[ray\]'"):
        RayExecutor(1).start(tmp_path)
