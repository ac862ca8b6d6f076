"""Confidence metrics equal the published ones for every model case of the oracle."""

from pathlib import Path

import numpy as np
import pytest

from parafold import confidence

ORACLE = Path(__file__).parent / "oracle"
CASES = sorted(
    path.parent.name
    for path in ORACLE.glob("*/outputs.npz")
    if any(key.startswith("confidence/") for key in np.load(path))
)
# Absolute, from the oracle's README: pLDDT in points, TM-scores, aligned errors in Å (rms about 10).
TOLERANCE = {
    "plddt": 1e-3,
    "predicted_aligned_error": 2e-4,
    "max_predicted_aligned_error": 1e-5,
    "ptm": 1e-5,
    "iptm": 1e-5,
}


def test_every_kind_of_model_is_among_the_cases():
    assert len(CASES) == 11


@pytest.mark.parametrize("case", CASES)
def test_case(case: str):
    stored = np.load(ORACLE / case / "outputs.npz")
    tree: dict = {}
    for key in stored:
        head, _, name = key.partition("/")
        tree.setdefault(head, {})[name] = stored[key]
    expected = tree.pop("confidence")
    multimer = "multimer" in case
    found = confidence.metrics_of_outputs(tree, multimer=multimer)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        tolerance = TOLERANCE.get(name, 1e-5 if multimer else 1e-3)
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance, err_msg=name)
