"""The Slurm executor, on a real cluster of one node that this module starts."""

import os
import shutil
import signal
import subprocess
import time

import pytest
import slurm_cluster
from small_plan import found, make_plan, processes, serially, wait_for

from parafold.errors import SearchError
from parafold.msa import demo_databases
from parafold.msa.executors.slurm import SlurmExecutor
from parafold.msa.plan import result_path
from parafold.msa.search import search

pytest.importorskip("submitit")
# Elements of job arrays are known by this variable.
ELEMENT = "SLURM_ARRAY_JOB_ID="


@pytest.fixture(scope="module", autouse=True)
def cluster():
    if why := slurm_cluster.obstacle():
        pytest.skip(why)
    with slurm_cluster.slurm_cluster() as configuration, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(configuration))
        yield


@pytest.fixture(scope="module")
def slow_plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slow")
    return folder, make_plan(folder, queries=20, length=1500)


@pytest.fixture
def slow(slow_plan, tmp_path):
    """A plan whose nine tasks take a quarter of a second each."""
    folder, plan = slow_plan
    return shutil.copytree(folder, tmp_path / "a plan"), plan


def active_jobs() -> str:
    return subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True).stdout.strip()


def test_finds_what_one_process_finds(tmp_path):
    plan = make_plan(tmp_path / "slurm")
    make_plan(tmp_path / "serial")
    with SlurmExecutor(2, poll=0.1) as executor:
        done = list(executor.run(tmp_path / "slurm", plan.order))
    assert sorted(done) == sorted(plan.order)
    assert found(tmp_path / "slurm") == serially(tmp_path / "serial")
    assert not active_jobs()
    assert not processes(ELEMENT)


def test_only_the_tasks_that_are_asked_for(tmp_path):
    plan = make_plan(tmp_path)
    with SlurmExecutor(1, poll=0.1) as executor:
        assert sorted(executor.run(tmp_path, plan.order[:2])) == sorted(plan.order[:2])
    assert set(found(tmp_path)) == set(plan.order[:2])


def test_search_from_within_a_job(tmp_path, monkeypatch):
    """As from within another array, whose variables must not reach a job that is none."""
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_PROCID"):
        monkeypatch.setenv(name, "7")
    queries = {"trp_cage": "NLYIQWLKDGGPSSGRPPPS"}
    executor = SlurmExecutor(1, poll=0.1)
    ours = search(queries, demo_databases(), executor=executor, shards=2, cache=tmp_path / "cache")
    assert ours.alignments == search(queries, demo_databases(), executor="serial", cache=None).alignments
    assert os.environ["SLURM_PROCID"] == "7"


def test_a_failing_task_ends_the_array_with_its_error(slow):
    folder, plan = slow
    plan_file = folder / "prepared" / "pyhmmer"
    plan_file.write_bytes(plan_file.read_bytes()[:-100])
    with (
        SlurmExecutor(2, poll=0.1) as executor,
        pytest.raises(SearchError, match="prepared/pyhmmer: is damaged"),
    ):
        list(executor.run(folder, plan.order))
    assert not active_jobs()
    assert not processes(ELEMENT)


def test_an_abandoned_search_leaves_no_job(slow):
    folder, plan = slow
    with SlurmExecutor(2, poll=0.1) as executor:
        running = executor.run(folder, plan.order)
        assert next(running) in plan.order
        assert processes(ELEMENT)
        running.close()
        assert not active_jobs()
        wait_for(lambda: not processes(ELEMENT), 5)
    assert 1 <= len(found(folder)) < len(plan.tasks)


def test_killed_elements_are_replaced(slow, tmp_path):
    folder, plan = slow
    serial = shutil.copytree(folder, tmp_path / "serial")
    with SlurmExecutor(2, poll=0.1) as executor:
        running = executor.run(folder, plan.order)
        done = [next(running)]
        for process in processes("SLURM_STEP_ID="):
            os.kill(process, signal.SIGKILL)
        assert sorted([*done, *running]) == sorted(plan.order)
    assert len(list((folder / "slurm").iterdir())) >= 2
    assert found(folder) == serially(serial)


def test_elements_that_bring_nothing_are_not_replaced_for_ever(slow, tmp_path, monkeypatch):
    folder, plan = slow
    (tmp_path / "submitit.py").write_text("raise ImportError('half an installation')")
    with SlurmExecutor(2, poll=0.1) as executor:
        # Only the nodes see it: here submitit is loaded already.
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        with pytest.raises(SearchError, match=r"2 FAILED: .*half an installation.*logs are in .*slurm/"):
            list(executor.run(folder, plan.order))


def test_what_a_killed_search_left_in_the_queue_is_cancelled(slow):
    folder, plan = slow
    first, second = SlurmExecutor(2, poll=0.1), SlurmExecutor(2, poll=0.1)
    abandoned = first.run(folder, plan.order)
    next(abandoned)
    before = set(found(folder))
    rest = [number for number in plan.order if number not in before]
    with second:
        assert sorted(second.run(folder, rest)) == sorted(rest)
    assert not active_jobs()
    first.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"partition": "nowhere"}, "invalid partition"),
        ({"extra": {"gres": "gpu:4"}}, "Invalid generic resource"),
        ({"partition": "short", "minutes": 60}, r"would wait for ever \(PartitionTimeLimit\)"),
    ],
)
def test_a_job_that_cannot_run_is_refused(tmp_path, options, message):
    plan = make_plan(tmp_path)
    begin = time.monotonic()
    with SlurmExecutor(2, poll=0.1, **options) as executor, pytest.raises(SearchError, match=message):
        list(executor.run(tmp_path, plan.order))
    assert time.monotonic() - begin < 15
    assert not active_jobs()


def test_without_slurm_the_way_by_hand_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        SlurmExecutor() as executor,
        pytest.raises(SearchError, match=r"sbatch is not on the PATH.*msa worker"),
    ):
        list(executor.run(tmp_path, [0]))


def test_results_appear_only_complete(slow):
    """Nothing but finished files stands in the folder of results after a cancellation."""
    folder, plan = slow
    with SlurmExecutor(2, poll=0.1) as executor:
        running = executor.run(folder, plan.order)
        next(running)
    names = {path.name for path in result_path(folder, 0).parent.glob("[!.]*")}
    assert names == {result_path(folder, number).name for number in found(folder)}
