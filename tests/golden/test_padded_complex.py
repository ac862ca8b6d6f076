"""Padded residues and rows change nothing real: a padded complex still equals the published model."""

import numpy as np
from reference import flatten, parameters, read_json, read_npz, relative_error

import parafold
from parafold.features import Features, model_inputs
from parafold.protein.residue import RESTYPES_WITH_X

CASE = "multimer_narrow_earlystop"  # recycles, and decides by a masked mean of distances when to stop
LENGTH, ROWS = 32, 64


def test_padded_complex():
    description, arrays, want = (
        read_json(CASE, "case.json"),
        read_npz(CASE, "features.npz"),
        read_npz(CASE, "outputs.npz"),
    )
    letters = np.array(list(RESTYPES_WITH_X))[arrays["aatype"]]
    sequences = tuple("".join(letters[arrays["asym_id"] == chain]) for chain in np.unique(arrays["asym_id"]))
    model = parafold.AlphaFold(description["model_name"], overrides=description["overrides"])
    inputs = model_inputs(Features("t", "multimer", sequences, arrays), model.config, 0, LENGTH, ROWS)
    assert inputs["msa"].shape == (ROWS, LENGTH) != arrays["msa"].shape
    params = parameters(read_json(CASE, "param_shapes.json"), description["param_seed"])
    got = flatten(model.apply(params, inputs, rng=description["rng_seed"]))

    real = len(arrays["aatype"])
    assert int(got["num_recycles"]) == int(want["num_recycles"])
    positions = got["structure_module/final_atom_positions"][:real]
    assert np.abs(positions - want["structure_module/final_atom_positions"]).max() <= 2e-4
    for name in ("predicted_lddt/logits", "experimentally_resolved/logits", "representations/single"):
        assert relative_error(got[name][:real], want[name]) <= 2e-5, name
    for name in ("predicted_aligned_error/logits", "distogram/logits", "representations/pair"):
        assert relative_error(got[name][:real, :real], want[name]) <= 2e-5, name
