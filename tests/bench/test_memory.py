"""The pair stack lives in little more than two pair tensors; no GPU is needed to see it."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest

if importlib.util.find_spec("jax_plugins.xla_cuda13") is None:
    pytest.skip("no compiler for GPUs here: pip install jax-cuda13-plugin", allow_module_level=True)


def test_pair_stack_on_h200():
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    command = [sys.executable, "-m", "parafold.bench.memory", "pair-stack", "--length", "2048"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    peaks = {
        precision: float(units)
        for precision, units in re.findall(r"(float32|bfloat16) +peak ([0-9.]+) U", done.stdout)
    }
    assert set(peaks) == {"float32", "bfloat16"}
    for precision, units in peaks.items():
        # Below two, something would not have been counted: the input and the workspace are one each.
        assert 2.0 <= units <= 2.6, precision


def test_published_order_of_work_needs_more():
    """The measure sees what blocks save: in one piece the same stack needs several times as much."""
    program = (
        "from parafold.bench import memory\n"
        "from parafold.model import blocks\n"
        "blocks._ACCELERATOR_BYTES = 2**50\n"
        "print(memory.pair_stack_peak(512, 'float32', num_blocks=2)[0])\n"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) > 4.0
