"""What this machine has of what parafold can use, and how to get the rest."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from parafold import weights
from parafold.display import in_bytes
from parafold.errors import ParafoldError, SearchError
from parafold.msa import Database, databases_in, demo_databases
from parafold.msa.registry import Registry, state
from parafold.programs import find_program

Status = Literal["ok", "warn", "missing"]

_FEW_BYTES_OF_MEMORY = 8e9
_FEW_BYTES_OF_DISK = 10e9

_PROGRAMS = (
    ("jackhmmer", "search with HMMER's own program (pyhmmer does the same in process)"),
    ("hhblits", "search of BFD and UniRef30"),
    ("hhsearch", "template search in pdb70"),
    ("kalign", "realignment of templates"),
    ("mmseqs", "fast search of large databases"),
)
# Extra, the modules that it brings, and what it serves.
_EXTRAS = (
    ("relax", ("openmm", "pdbfixer"), "relaxation of predicted structures"),
    ("ray", ("ray",), "search and prediction over a Ray cluster"),
    ("slurm", ("submitit",), "search and prediction as Slurm jobs"),
    ("notebooks", ("ipykernel", "nbclient"), "the notebooks"),
)
_STYLES = {"ok": "green", "warn": "yellow", "missing": "dim"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: `remedy` says how to mend or get it, and is empty where all is well."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


def checks(
    databases: str | Path | None = None,
    weights_folder: str | Path | None = None,
    jax_seconds: float = 4.0,
) -> list[Check]:
    """Looks at Python, JAX and its devices, search programs, databases, parameters, memory, disk, and extras.

    Less than five seconds: JAX starts in a process of its own, which is given up on after `jax_seconds`.
    """
    with _JaxProcess(jax_seconds) as jax:
        others = [
            *_engines(),
            *_databases(databases),
            _weights(weights_folder),
            _memory(),
            _disk(Path.cwd()),
            *_extras(),
        ]
        return [_python(), *jax.checks(), *others]


def show(console: Console | None = None, found: list[Check] | None = None) -> None:
    """Print the checks as a table, then one line for each remedy."""
    console = console or Console()
    found = checks() if found is None else found
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in found:
        table.add_row(Text(check.status, style=_STYLES[check.status]), Text(check.name), Text(check.detail))
    console.print(table)
    remedies = [check for check in found if check.remedy]
    if remedies:
        console.print("\nHow to get the rest:")
    for check in remedies:
        console.print(f"  {check.name}: {check.remedy}", highlight=False, markup=False, soft_wrap=True)


def _python() -> Check:
    detail = f"{platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return Check("Python", "ok", detail)


class _JaxProcess:
    """JAX and its devices, looked at by another process: a driver that hangs does not hang this one."""

    _PROGRAM = (
        "import json, jax; d = jax.devices();"
        "print(json.dumps([jax.__version__, jax.default_backend(), [x.device_kind for x in d]]))"
    )

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> _JaxProcess:
        # Without preallocation: looking must not take the memory of a device that is at work.
        environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._PROGRAM],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def checks(self) -> list[Check]:
        try:
            output, errors = self._process.communicate(timeout=self._seconds)
            version, backend, kinds = json.loads(output.splitlines()[-1])
        except subprocess.TimeoutExpired:
            detail = f"did not start within {self._seconds:.0f} s"
            return [Check("JAX", "warn", detail, "try `python -c 'import jax; print(jax.devices())'`")]
        except (IndexError, ValueError):
            reason = (errors.strip().splitlines() or ["no output"])[-1]
            return [Check("JAX", "missing", f"does not start: {reason}", "pip install --upgrade jax")]
        devices = ", ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
        found = [Check("JAX", "ok", version)]
        if backend == "cpu" and shutil.which("nvidia-smi"):
            remedy = "pip install 'jax[cuda13]' (driver 580 or newer)"
            return [*found, Check("devices", "warn", f"{devices}; an NVIDIA driver is there, unused", remedy)]
        return [*found, Check("devices", "ok", f"{backend}: {devices}")]


def _engines() -> Iterator[Check]:
    yield _package("pyhmmer", "search in process", "pip install pyhmmer")
    for program, serves in _PROGRAMS:
        try:
            yield Check(program, "ok", str(find_program(program)))
        except SearchError as error:
            # What is wrong; what to do.
            yield Check(program, "missing", f"optional: {serves}", str(error).partition("; ")[2])
    yield _package("parasail", "optional: search with the engine needleman-wunsch", "pip install parasail")


def _databases(folder: str | Path | None) -> Iterator[Check]:
    try:
        yield Check("demonstration databases", "ok", _described(demo_databases()))
        if folder is not None:
            yield Check("databases", "ok", _described(databases_in(folder)))
        for entry in Registry().entries():
            name, now = entry.database.name, state(entry)
            if now == "as added":
                yield Check(
                    f"database {name}", "ok", f"{in_bytes(entry.database.bytes)}, {entry.database.path}"
                )
            else:
                remedy = (
                    f"parafold db verify {name}, then parafold db add {name} or parafold db remove {name}"
                )
                yield Check(f"database {name}", "warn", f"{now}, {entry.database.path}", remedy)
    except (ParafoldError, OSError) as error:
        yield Check(
            "databases", "missing", str(error), "name a folder of FASTA files, or install parafold again"
        )


def _described(databases: list[Database]) -> str:
    return ", ".join(f"{database.name} ({in_bytes(database.bytes)})" for database in databases)


def _weights(folder: str | Path | None) -> Check:
    try:
        found = weights.find(folder)
    except ParafoldError:
        detail = "none: predictions use random parameters and mean nothing"
        return Check("parameters", "missing", detail, "parafold weights fetch (5.3 GB, CC BY 4.0)")
    place = next(iter(found.values())).parent
    return Check("parameters", "ok", f"{len(found)} in {place}: {', '.join(found)}")


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    detail = in_bytes(total)
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
        detail += f", {in_bytes(1024 * int(fields['MemAvailable'].split()[0]))} free"
    if total < _FEW_BYTES_OF_MEMORY:
        return Check("memory", "warn", detail, "8 GB or more fold a protein of a few hundred residues")
    return Check("memory", "ok", detail)


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    detail = f"{in_bytes(free)} free in {folder}"
    if free < _FEW_BYTES_OF_DISK:
        return Check(
            "disk", "warn", detail, "the published parameters alone need 11 GB while they are unpacked"
        )
    return Check("disk", "ok", detail)


def _extras() -> Iterator[Check]:
    for extra, modules, serves in _EXTRAS:
        missing = [module for module in modules if util.find_spec(module) is None]
        if missing:
            yield Check(f"[{extra}]", "missing", f"optional: {serves}", f"pip install {' '.join(missing)}")
        else:
            detail = ", ".join(f"{module} {_version(module)}" for module in modules)
            yield Check(f"[{extra}]", "ok", detail)


def _package(name: str, serves: str, remedy: str) -> Check:
    if util.find_spec(name) is None:
        return Check(name, "missing", serves, remedy)
    return Check(name, "ok", f"{_version(name)}, {serves}")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(version unknown)"
