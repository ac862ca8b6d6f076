"""The seams stand where an axis turns: with collectives in them, two devices give what one gives."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "sharded_seams.py"


@pytest.mark.parametrize(
    ("case", "block_size"),
    # Templates and recycling in a monomer, in one piece and in blocks; a complex, whose order differs.
    [("ptm_narrow_r3", 0), ("ptm_narrow_r3", 5), ("multimer_v2_narrow_r1", 0)],
)
def test_two_devices_equal_one(case, block_size):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), case, str(block_size)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["all_to_all"] > 0
    assert found["all_gather"] > 0
    for key, difference in found["differences"].items():
        assert difference < (2e-4 if key.startswith("structure_module") else 5e-5), key
