"""Whole models against the published code: recycling, ensembling, templates, early stop, training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from parafold.confidence import metrics_of_outputs
from parafold.model.alphafold import AlphaFold, model_arrays
from parafold.model.msa_sampling import sample_msa
from parafold.model.params import parameter_shapes

MONOMER = ["monomer_full_r0", "monomer_narrow_r3", "ptm_narrow_r3", "model3_narrow_ens2_r1"]
MULTIMER = [
    "multimer_full_r0",
    "multimer_narrow_r3",
    "multimer_narrow_earlystop",
    "multimer_homo_narrow_r1",
    "multimer_puredimer_r0",
    "multimer_v2_narrow_r1",
]
BFLOAT16 = "multimer_narrow_bf16_r0"
TRAINING = ["train_ptm_r0", "train_model3_r1"]

# What is held to the tightest bounds is compiled as users compile it, not as the rest of the suite.
OPTIMIZED = {"xla_backend_optimization_level": 3}

# In Å, or sums of distances in Å: compared absolutely.
POSITIONS = (
    "positions",
    "structure_module/traj",
    "final_affines",
    "final_rigids",
    "sidechains/atom_pos",
    "sidechains/frames",
    "loss_sum",
)


class Case:
    """One reference case: the model with its seeded parameters, features and wanted outputs."""

    def __init__(self, name: str):
        self.name = name
        self.meta = reference.read_json(name, "case.json")
        self.model = AlphaFold(self.meta["model_name"], self.meta["overrides"])
        self.shapes = reference.read_json(name, "param_shapes.json")
        self.params = reference.parameters(self.shapes, self.meta["param_seed"])
        self.features = model_arrays(reference.read_npz(name, "features.npz"))
        self.wanted = reference.read_npz(name, "outputs.npz")

    def crop(self, x: np.ndarray) -> np.ndarray:
        """Without padded residues, where the published values mean nothing."""
        padded = self.meta.get("crop_size")
        if padded:
            length = int(self.features["seq_mask"][0].sum())
            for axis in [a for a in range(x.ndim) if x.shape[a] == padded]:
                x = x.take(range(length), axis)
        return x


@pytest.fixture(params=[*MONOMER, *MULTIMER], scope="module")
def solved(request):
    """A case, its jitted model (features, how often to recycle) and all outputs; one compilation a case."""
    case = Case(request.param)
    limit = case.model.config.model.num_recycle

    @functools.partial(jax.jit, compiler_options=OPTIMIZED)
    def run(features, recycles):
        count = jnp.broadcast_to(recycles, features["aatype"].shape[:1])
        return case.model.apply(
            case.params, features | {"num_iter_recycling": count}, rng=case.meta["rng_seed"]
        )

    def outputs(recycles=limit):
        return jax.tree.map(np.asarray, run(case.features, recycles))

    return case, outputs


def assert_close(case: Case, key: str, got, want):
    got, want = case.crop(np.asarray(got)), case.crop(np.asarray(want))
    if key.endswith(POSITIONS):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-4, err_msg=key)
    elif key.endswith("/angles_sin_cos"):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-4, err_msg=key)
    elif key.endswith("plddt"):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-3, err_msg=key)
    elif key.endswith(("ptm", "ranking_confidence")):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5, err_msg=key)
    else:
        assert reference.relative_error(got, want) <= 2e-5, key


def test_outputs(solved):
    case, outputs = solved
    out = outputs()
    flat = reference.flatten(out)
    confidence = metrics_of_outputs(out, multimer=case.model.multimer)
    flat |= {f"confidence/{name}": value for name, value in confidence.items()}
    for key, want in case.wanted.items():
        assert_close(case, key, flat[key], want)


def test_recycles(solved):
    """What each pass hands to the next: the results of running with fewer recycles."""
    case, outputs = solved
    passes = case.model.config.model.num_recycle
    if passes == 0:
        assert not reference.ORACLE.joinpath(case.name, "recycles.npz").exists()
        return
    wanted = reference.read_npz(case.name, "recycles.npz")
    for i in range(sum(key.endswith("pair") for key in wanted)):
        flat = reference.flatten(outputs(i))
        for key in [key for key in wanted if key.startswith(f"recycle_{i}/")]:
            assert_close(case, key, flat[key.partition("/")[2]], wanted.pop(key))
    assert not wanted


@pytest.mark.parametrize("name", [*MULTIMER, BFLOAT16])
def test_msa_sampling(name):
    """Every sampled feature of every pass, from the published key schedule."""
    meta = reference.read_json(name, "case.json")
    model = AlphaFold(meta["model_name"], meta["overrides"]).config.model
    features = model_arrays(reference.read_npz(name, "features.npz"))
    wanted = reference.read_npz(name, "sampled.npz")
    iterations = sorted({key.partition("/")[0] for key in wanted})
    key = jax.random.split(jax.random.PRNGKey(meta["rng_seed"]))[1]
    run = jax.jit(functools.partial(sample_msa, config=model.embeddings_and_evoformer))
    for i, iteration in enumerate(iterations):
        use = key
        if model.resample_msa_in_recycling and i < len(iterations) - 1:
            key, use = jax.random.split(key)
        sample = run(jax.random.split(use)[1], features)
        for field in ("true_msa", "bert_mask", "msa_mask"):
            np.testing.assert_array_equal(getattr(sample, field), wanted[f"{iteration}/{field}"])
        np.testing.assert_array_equal(sample.extra_msa_mask, wanted[f"{iteration}/extra_msa_feat_mask"])
        for field in ("msa_feat", "extra_msa_feat"):
            assert reference.relative_error(getattr(sample, field), wanted[f"{iteration}/{field}"]) <= 2e-5


def test_bfloat16():
    """Two bfloat16 implementations round in different places: only the overall size of errors is fixed."""
    case = Case(BFLOAT16)
    out = jax.jit(functools.partial(case.model.apply, rng=case.meta["rng_seed"]))(case.params, case.features)
    flat = reference.flatten(jax.tree.map(np.asarray, out))
    for key, want in case.wanted.items():
        if key.startswith("confidence/"):
            continue
        assert flat[key].shape == want.shape
        assert np.isfinite(flat[key]).all()
        if "logits" in key or "representations" in key:
            error = np.sqrt(np.mean((flat[key] - want) ** 2)) / np.sqrt(np.mean(want**2))
            assert error <= 5e-2, key


@pytest.mark.parametrize("name", [*MONOMER, *MULTIMER, BFLOAT16, *TRAINING])
def test_parameter_names_and_shapes(name):
    case = Case(name)
    assert parameter_shapes(case.model) == {key: tuple(shape) for key, shape in case.shapes.items()}


@pytest.mark.parametrize(
    ("file", "model"),
    [
        ("param_tree_monomer", "model_1"),
        ("param_tree_monomer_notemplate", "model_3"),
        ("param_tree_monomer_ptm", "model_2_ptm"),
        ("param_tree_monomer_ptm_notemplate", "model_5_ptm"),
        ("param_tree_multimer", "model_1_multimer_v3"),
        ("param_tree_multimer_v1_v2", "model_4_multimer"),
        ("param_tree_multimer_v1_v2", "model_2_multimer_v2"),
    ],
)
def test_published_parameter_trees(file, model):
    wanted = {key: tuple(shape) for key, shape in reference.read_json(f"{file}.json").items()}
    assert parameter_shapes(AlphaFold(model)) == wanted


@pytest.mark.parametrize("name", TRAINING)
def test_training(name):
    """Losses, the arrays behind them, and every leaf of the gradient."""
    case = Case(name)

    def loss(params, features):
        return case.model.apply(
            params, features, rng=case.meta["rng_seed"], is_training=True, compute_loss=True
        )

    # Features are arguments: folded into constants, undefined template angles would come out otherwise.
    total, out = jax.jit(loss, compiler_options=OPTIMIZED)(case.params, case.features)
    gradient, _ = jax.jit(jax.grad(loss, has_aux=True))(case.params, case.features)
    flat = reference.flatten(jax.tree.map(np.asarray, out))
    norms = [np.linalg.norm(np.asarray(g)) for g in jax.tree.leaves(gradient)]
    flat["total_loss"] = np.asarray(total)
    flat["grad_global_norm"] = np.sqrt(np.sum(np.square(norms)))
    wanted = reference.read_json(name, "losses.json")
    wanted.pop("derived/structural_violation_loss")  # compared on its own in test_geometry.py
    for key, want in wanted.items():
        tolerance = 1e-4 if key == "grad_global_norm" else 1e-5
        np.testing.assert_allclose(flat[key], want, rtol=tolerance, atol=1e-6, err_msg=key)
    for key, want in case.wanted.items():
        assert_close(case, key, flat[key], want)

    leaves = {
        f"{path}//{leaf}": np.asarray(g) for path, named in gradient.items() for leaf, g in named.items()
    }
    # A leaf whose true gradient is zero (a bias that softmax cancels) holds nothing but rounding.
    floor = 1e-8 * flat["grad_global_norm"]
    statistics = reference.read_json(name, "grad_stats.json")
    assert set(leaves) == set(statistics)
    for path, (norm, projection) in statistics.items():
        direction = reference.gradient_direction(path, leaves[path].shape)
        np.testing.assert_allclose(np.linalg.norm(leaves[path]), norm, rtol=1e-4, atol=floor, err_msg=path)
        error = abs(float(np.sum(leaves[path] * direction)) - projection)
        # A direction of standard normals has unit variance along the error, whatever its length.
        assert error <= 5e-4 * norm + 5 * floor, path
    for path, want in reference.read_npz(name, "grads.npz").items():
        error = np.linalg.norm(leaves[path] - want)
        assert error <= 1e-4 * np.linalg.norm(want) + floor, path
