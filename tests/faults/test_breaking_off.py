"""A run that is killed, interrupted, or cannot write loses nothing that was finished."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import small

from parafold.files import UNFINISHED, sha256_file
from parafold.output import read_result

TARGETS = {
    "T1": "NLYIQWLKDGGPSSGRPPPS",
    "T2": "LSDEDFKAVFGMTRSAFANLPLWKQQNLKKEKGLF",
    "T3": "TTCCPSIVARSNFNVCRLPGTPEALCATYTGCIIIPGATCPGDYAN",
}
# What differs from run to run: wall times, and what holds them.
TIMED = ("manifest.json", "timings.json", ".safetensors")


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "targets.fasta"
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in TARGETS.items()))
    return path


def command(fasta: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "parafold", "fold", str(fasta), "-o", str(out), *small.OPTIONS]


def run(fasta: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(fasta, out), capture_output=True, text=True)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, "the run ended too early"
        assert time.monotonic() < deadline, "the run takes too long"
        time.sleep(0.002)


def state(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file under a final name, when it was written, and its digest."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, sha256_file(path))
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def contents(folder: Path) -> dict[str, str]:
    """Digests of the files that must come out the same in every run."""
    return {name: sha256 for name, (_, sha256) in state(folder).items() if not name.endswith(TIMED)}


def test_a_killed_run_goes_on_where_it_stopped(fasta: Path, tmp_path: Path):
    out = tmp_path / "out"
    with subprocess.Popen(command(fasta, out), stdout=subprocess.DEVNULL) as process:
        wait_for((out / "T1/manifest.json").is_file, process)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (out / "T3/manifest.json").exists()
    first = state(out / "T1")

    result = run(fasta, out)
    assert (result.returncode, result.stderr) == (0, "")
    assert "2 folded, 1 complete already" in result.stdout
    assert state(out / "T1") == first
    assert all((out / name / "manifest.json").is_file() for name in TARGETS)
    finished = state(out)

    result = run(fasta, out)
    assert "Nothing to do" in result.stdout
    assert state(out) == finished


def test_killed_again_and_again_it_ends_like_a_run_in_peace(fasta: Path, tmp_path: Path):
    out = tmp_path / "out"
    # The moments: while searching, in the middle of predictions, while writing them, while ranking.
    moments = (
        "T1/msas",
        "T1/features.safetensors",
        "T1/unrelaxed_demo_pred_0.pdb",
        "T1/ranked_0.pdb",
        "T2/pae.png",
    )
    for moment in moments:
        with subprocess.Popen(command(fasta, out), stdout=subprocess.DEVNULL) as process:
            wait_for((out / moment).exists, process)
            process.send_signal(signal.SIGKILL)
        for path in out.rglob("result_*.safetensors"):
            read_result(path)
        for path in [*out.rglob("[a-z]*.json")]:
            json.loads(path.read_text())
    assert run(fasta, out).returncode == 0
    peace = tmp_path / "peace"
    assert run(fasta, peace).returncode == 0
    assert contents(out) == contents(peace)
    assert not list(out.rglob(UNFINISHED))


def test_interrupt_ends_in_one_line(fasta: Path, tmp_path: Path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(fasta, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_for((out / "T1/features.safetensors").is_file, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    (line,) = errors.splitlines()
    assert "interrupted" in line and "continues" in line


def test_a_file_that_cannot_grow_fails_its_target_and_the_rest_is_kept(fasta: Path, tmp_path: Path):
    """A limit on file sizes stops the longest target's result, as a full disk would."""
    run(fasta, tmp_path / "before")
    results = {name: tmp_path / "before" / name / "result_demo_pred_0.safetensors" for name in TARGETS}
    limit = (results["T2"].stat().st_size + results["T3"].stat().st_size) // 2
    out = tmp_path / "out"
    limited = (
        f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    program = [sys.executable, "-c", limited, *command(fasta, out)[1:]]
    result = subprocess.run(program, capture_output=True, text=True)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "T3" in line and "result_demo_pred_0.safetensors" in line and "cannot be written" in line
    assert "2 folded, 1 failed" in result.stdout
    assert not list(out.rglob(UNFINISHED))
    kept = {name: entry for name, entry in state(out).items() if "T3" not in name}

    result = run(fasta, out)
    assert (result.returncode, result.stderr) == (0, "")
    assert "1 folded, 2 complete already" in result.stdout
    assert {name: entry for name, entry in state(out).items() if "T3" not in name} == kept


def full_disk(folder: Path, size: int) -> contextlib.AbstractContextManager:
    """A small file system on `folder`, where this machine lets us mount one."""
    stack = contextlib.ExitStack()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    stack.callback(subprocess.run, ["umount", str(folder)], check=True)
    return stack


def test_a_full_disk_is_named(fasta: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    with full_disk(out, 2**20):
        result = run(fasta, out)
        assert result.returncode == 2
        lines = result.stderr.splitlines()
        assert lines and all("the disk is full" in line and str(out) in line for line in lines)
        assert (out / "T1/manifest.json").is_file()


def test_a_folder_without_permission_is_named(fasta: Path, tmp_path: Path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    program = command(fasta, locked / "out")
    if os.geteuid() == 0:
        # The administrator may write everywhere unless this right is given up.
        if shutil.which("setpriv") is None:
            pytest.skip("run by the administrator, and setpriv is not there")
        rights = "-dac_override,-dac_read_search"
        program = ["setpriv", "--bounding-set", rights, "--inh-caps", rights, *program]
    result = subprocess.run(program, capture_output=True, text=True)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert str(locked / "out") in line and "no permission" in line


@pytest.mark.parametrize("place", ["targets.fasta", "targets.fasta/out"])
def test_an_output_folder_that_is_a_file_is_named(fasta: Path, tmp_path: Path, place: str):
    result = run(fasta, tmp_path / place)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert place in line and "file" in line
    assert fasta.read_text().startswith(">T1")


def test_a_file_in_the_place_of_a_target_fails_that_target(fasta: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "T1").write_text("mine")
    result = run(fasta, out)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "T1" in line and "file of that name" in line
    assert (out / "T1").read_text() == "mine"
    assert (out / "T2/manifest.json").is_file() and (out / "T3/manifest.json").is_file()
