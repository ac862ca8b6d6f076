import io
import os
import sys

import numpy as np
import pytest
from rich.console import Console

from parafold import doctor


@pytest.fixture(scope="module")
def found():
    return {check.name: check for check in doctor.checks(jax_seconds=60)}


def test_what_every_run_needs_is_found(found):
    for name in ("Python", "JAX", "devices", "pyhmmer", "demonstration databases"):
        assert found[name].status == "ok"
    assert "uniref90_demo" in found["demonstration databases"].detail
    assert found["devices"].detail.startswith("cpu")


def test_whatever_is_not_well_has_a_remedy(found):
    for check in found.values():
        assert (check.status == "ok") == (check.remedy == "")


def test_programs_are_looked_for_on_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert {c.name: c for c in doctor.checks(jax_seconds=0.1)}["hhblits"].status == "missing"
    program = tmp_path / "hhblits"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert {c.name: c for c in doctor.checks(jax_seconds=0.1)}["hhblits"].detail == str(program)


def test_parameters_and_databases_of_the_user(tmp_path):
    np.savez(tmp_path / "params_model_1_ptm.npz", weights=np.zeros(3))
    (tmp_path / "mine.fasta").write_text(">a\nACDEF\n")
    found = {check.name: check for check in doctor.checks(tmp_path, tmp_path, 0.1)}
    assert "model_1_ptm" in found["parameters"].detail
    assert "mine" in found["databases"].detail
    absent = {check.name: check for check in doctor.checks(tmp_path / "no", tmp_path / "no", 0.1)}
    assert absent["parameters"].status == "missing"
    assert absent["databases"].status == "missing"


def test_a_jax_that_does_not_start_is_reported(tmp_path, monkeypatch):
    (tmp_path / "jax.py").write_text("raise ImportError('libcuda is too old')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    check = next(check for check in doctor.checks(jax_seconds=60) if check.name == "JAX")
    assert check.status == "missing"
    assert "libcuda is too old" in check.detail


def test_a_jax_that_hangs_is_given_up_on(tmp_path, monkeypatch):
    (tmp_path / "jax.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    check = next(check for check in doctor.checks(jax_seconds=0.5) if check.name == "JAX")
    assert check.status == "warn"
    assert "did not start" in check.detail


def test_the_table_names_everything(found):
    text = io.StringIO()
    doctor.show(Console(file=text, width=100), list(found.values()))
    for check in found.values():
        assert check.name in text.getvalue()
        assert check.remedy in text.getvalue()
