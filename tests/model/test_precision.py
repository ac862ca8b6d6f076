"""The three precision policies on one real case of the reference, and equal results for equal seeds."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from parafold.model.alphafold import AlphaFold, model_arrays

sys.path.insert(0, str(Path(__file__).parent.parent / "golden"))
import reference

CASE = "monomer_full_r0"


def run(precision):
    meta = reference.read_json(CASE, "case.json")
    overrides = meta["overrides"] | {"model.global_config.precision": precision}
    model = AlphaFold(meta["model_name"], overrides)
    params = reference.parameters(reference.read_json(CASE, "param_shapes.json"), meta["param_seed"])
    features = model_arrays(reference.read_npz(CASE, "features.npz"))
    function = jax.jit(lambda params, features: model.apply(params, features, rng=meta["rng_seed"]))
    return [jax.tree.map(np.asarray, function(params, features)) for _ in range(2)]


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("mixed", 2e-2), ("bfloat16", 5e-2)])
def test_precision(precision, tolerance):
    first, again = (reference.flatten(out) for out in run(precision))
    wanted = reference.read_npz(CASE, "outputs.npz")
    for key, value in first.items():
        np.testing.assert_array_equal(value, again[key], err_msg=key)
        assert value.dtype != jax.numpy.bfloat16, key
    for key in ("representations/pair", "representations/single", "distogram/logits"):
        error = np.sqrt(np.mean((first[key] - wanted[key]) ** 2)) / np.sqrt(np.mean(wanted[key] ** 2))
        assert error < tolerance, key
        # Each policy does compute in its own precision: coarser ones leave a visible trace.
        assert precision == "float32" or error > 1e-4, key
