"""The structure module's parts against the published code, module by module."""

import dataclasses
import zlib

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from parafold.model.config import model_config
from parafold.model.context import Context
from parafold.model.heads import PredictedLDDTHead
from parafold.model.losses import model_loss
from parafold.model.rigid import Rigid
from parafold.model.structure_module import FoldIteration, InvariantPointAttention, StructureModule
from parafold.model.violations import violation_loss

CASE = reference.read_json("modules", "case.json")
ARRAYS = reference.read_npz("modules", "modules.npz")
NAMES = ("ipa_monomer", "ipa_multimer", "fold_iteration_monomer", "fold_iteration_multimer")
# Whole models whose representations are the inputs of the structure module, and its outputs the rest.
MODELS = (
    "model3_narrow_ens2_r1",
    "monomer_full_r0",
    "monomer_narrow_r3",
    "ptm_narrow_r3",
    "train_model3_r1",
    "train_ptm_r0",
    "multimer_full_r0",
    "multimer_homo_narrow_r1",
    "multimer_narrow_earlystop",
    "multimer_narrow_r3",
    "multimer_puredimer_r0",
    "multimer_v2_narrow_r1",
)
SCOPE = "alphafold/alphafold_iteration/"
TOLERANCE = 2e-5


def section(multimer: bool, block_size: int):
    preset = "model_1_multimer_v3" if multimer else "model_1"
    config = model_config(preset).model
    structure = config.heads.structure_module
    structure.num_channel, structure.num_head, structure.sidechain.num_channel = 28, 3, 14
    structure.position_scale = 10.0  # the multimer's case was made so, too
    return structure, dataclasses.replace(Context.of(config.global_config), block_size=block_size)


def attention(multimer: bool, block_size: int):
    config, ctx = section(multimer, block_size)

    def run(single, pair, mask, frames):
        module = InvariantPointAttention(config, ctx, multimer=multimer)
        return {"out": module(single, pair, mask[:, 0], Rigid.from_tensor7(frames))}

    return run


def fold_iteration(multimer: bool, block_size: int):
    config, ctx = section(multimer, block_size)

    def run(act, initial_act, pair, mask, frames, aatype):
        module = FoldIteration(config, ctx, multimer=multimer)
        act, frames, sidechains = module(
            act, initial_act, pair, mask[:, 0], Rigid.from_tensor7(frames), aatype
        )
        backbone = {"rigid": frames.to_matrix()} if multimer else {"affine": frames.to_tensor7()}
        groups = sidechains["frames"]
        return backbone | {
            "act": act,
            "angles": sidechains["angles_sin_cos"],
            "unnormalized": sidechains["unnormalized_angles_sin_cos"],
            "atom_pos": sidechains["atom_pos"],
            "frames": groups.to_matrix() if multimer else groups.to_tensor12(),
        }

    return run


@pytest.mark.parametrize("block_size", [0, 3], ids=["whole", "blocks"])
@pytest.mark.parametrize("name", NAMES)
def test_module(name, block_size):
    build = attention if name.startswith("ipa") else fold_iteration
    inputs = [ARRAYS[key] for key in ARRAYS if key.startswith(f"{name}/in")]
    params = reference.parameters(CASE["cases"][name]["param_shapes"], CASE["seed"])
    module = hk.transform(build(name.endswith("multimer"), block_size))
    initial = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    assert jax.tree.map(np.shape, dict(initial)) == jax.tree.map(np.shape, dict(params))
    out = jax.jit(module.apply)(params, None, *inputs)
    wanted = {k.split("/out/")[1]: v for k, v in ARRAYS.items() if k.startswith(f"{name}/out/")}
    assert set(out) == set(wanted)
    # The mask lowers all logits of a masked query by 1e5, whose last bit is 0.008: such rows are noise.
    exists = inputs[2 if name.startswith("ipa") else 3][:, 0] == 1
    assert 0 < exists.sum() < exists.size
    for key, want in wanted.items():
        assert reference.relative_error(out[key][exists], want[exists]) <= TOLERANCE, key


def model_case(name: str, parts=("structure_module",)):
    """Config, batch of one example, outputs, and some modules' parameters of a whole model's case."""
    case, outputs = reference.read_json(name, "case.json"), reference.read_npz(name, "outputs.npz")
    model = {k: v for k, v in case["overrides"].items() if k.startswith("model.heads.")}
    config = model_config(case["model_name"], model).model
    batch = reference.read_npz(name, "features.npz")
    if not config.global_config.multimer_mode:
        # The last pass sees the slice of its number; with ensembling these are its slices' labels as well.
        last = batch["num_iter_recycling"][0] if "num_iter_recycling" in batch else 0
        batch = {key: array[last] for key, array in batch.items()}
    batch = jax.tree.map(jnp.asarray, batch)
    shapes = reference.read_json(name, "param_shapes.json")
    shapes = {k: v for k, v in shapes.items() if k.startswith(tuple(f"{SCOPE}{part}/" for part in parts))}
    params = reference.parameters(shapes, case["param_seed"])
    return config, batch, outputs, {k.removeprefix(SCOPE): v for k, v in params.items()}


@pytest.mark.parametrize("name", MODELS)
def test_structure_module(name):
    config, batch, outputs, params = model_case(name)
    multimer = config.global_config.multimer_mode
    ctx = Context.of(config.global_config)

    def run(single, pair, aatype, seq_mask):
        module = StructureModule(config.heads.structure_module, ctx, multimer=multimer)
        return module(single, pair, aatype, seq_mask)

    module = hk.transform(run)
    single, pair = outputs["representations/single"], outputs["representations/pair"]
    length = single.shape[0]
    aatype, seq_mask = batch["aatype"][:length], batch["seq_mask"][:length]
    initial = jax.eval_shape(module.init, jax.random.key(0), single, pair, aatype, seq_mask)
    assert jax.tree.map(np.shape, dict(initial)) == jax.tree.map(np.shape, dict(params))
    out = jax.jit(module.apply)(params, None, single, pair, aatype, seq_mask)
    flat = {f"structure_module/{k}": v for k, v in reference.flatten(out).items()}
    activations = "representations/structure_module"
    flat[activations] = flat.pop(f"structure_module/{activations}")
    of_losses = ("violations/", "renamed_atom14", "alt_naming")
    wanted = {k for k in outputs if k.startswith("structure_module/") or k == activations}
    wanted = {k for k in wanted if not k.removeprefix("structure_module/").startswith(of_losses)}
    assert set(flat) == wanted
    exists = seq_mask == 1
    for key in wanted:
        axis = 1 if key.startswith(("structure_module/traj", "structure_module/sidechains")) else 0
        got, want = (np.compress(exists, np.asarray(x), axis=axis) for x in (flat[key], outputs[key]))
        # Normalizing short vectors costs angles a digit.
        tolerance = 1e-4 if key.endswith("sidechains/angles_sin_cos") else TOLERANCE
        assert reference.relative_error(got, want) <= tolerance, key
        if "position" in key or "atom_pos" in key:
            assert np.max(np.abs(got - want)) <= 2e-4, key


@pytest.mark.parametrize("name", ["train_ptm_r0", "train_model3_r1"])
def test_losses(name):
    config, batch, outputs, _ = model_case(name)
    tree = {}
    for key, array in outputs.items():
        *path, last = key.split("/")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = array
    heads = {key: value for key, value in tree.items() if key in config.heads}
    total, parts = jax.jit(lambda out, batch: model_loss(out, batch, config.heads))(heads, batch)
    got = reference.flatten(parts)
    scalars = reference.read_json(name, "losses.json")
    assert float(total) == pytest.approx(scalars.pop("total_loss"), rel=1e-5)
    atom_mask = jnp.asarray(outputs["structure_module/final_atom14_mask"])
    violation = violation_loss(parts["structure_module"]["violations"], atom_mask)
    assert float(violation) == pytest.approx(scalars.pop("derived/structural_violation_loss"), rel=1e-5)
    del scalars["grad_global_norm"]  # a gradient of the whole model
    arrays = {key: array for key, array in outputs.items() if key in got}
    of_losses = (
        "structure_module/violations/",
        "structure_module/renamed",
        "structure_module/alt",
        "distogram/true",
    )
    assert set(arrays) == {key for key in outputs if key.startswith(of_losses)}
    # `bb_loss` is a part that only the multimer's code names.
    assert set(got) - {"structure_module/bb_loss"} == set(arrays) | set(scalars)
    for key, want in scalars.items():
        assert float(got[key]) == pytest.approx(want, rel=1e-5), key
    for key, want in arrays.items():
        assert reference.relative_error(got[key], want) <= TOLERANCE, key


@pytest.mark.parametrize("name", ["train_ptm_r0", "train_model3_r1"])
def test_gradients(name):
    # All that reaches the structure module's parameters: its own loss, and that of the pLDDT head through the
    # activations (positions and frames are fixed targets for pLDDT and PAE).
    parts = ("structure_module", "predicted_lddt_head")
    config, batch, outputs, params = model_case(name, parts)
    ctx = Context.of(config.global_config, is_training=True)

    def run(single, pair):
        structure = StructureModule(config.heads.structure_module, ctx, multimer=False)(
            single, pair, batch["aatype"], batch["seq_mask"]
        )
        act = structure.pop("representations")["structure_module"]
        lddt = PredictedLDDTHead(config.heads.predicted_lddt, ctx)(act)
        return model_loss({"structure_module": structure, "predicted_lddt": lddt}, batch, config.heads)[0]

    representations = [jnp.asarray(outputs[f"representations/{key}"]) for key in ("single", "pair")]
    gradient = jax.jit(jax.grad(lambda p: hk.transform(run).apply(p, jax.random.key(0), *representations)))(
        params
    )
    got = {f"{SCOPE}{path}//{leaf}": x for path, leaves in gradient.items() for leaf, x in leaves.items()}
    stats, full = reference.read_json(name, "grad_stats.json"), reference.read_npz(name, "grads.npz")
    whole = reference.read_json(name, "losses.json")["grad_global_norm"]
    of_parts = tuple(f"{SCOPE}{part}/" for part in parts)
    assert set(got) == {path for path in stats if path.startswith(of_parts)}
    for path, value in got.items():
        norm, dot = stats[path]
        value = np.asarray(value, np.float64)
        direction = np.random.default_rng(zlib.crc32(path.encode()) + 777).standard_normal(value.shape)
        # A constant on all logits changes nothing: the gradient of their bias is noise around zero.
        tolerance = 1e-4 * norm + 1e-7 * whole
        assert abs(np.linalg.norm(value) - norm) <= tolerance, path
        # Along a standard normal direction an error shows with its own norm as standard deviation.
        assert abs(np.sum(value * direction) - dot) <= 4 * tolerance, path
        if path in full:
            assert np.linalg.norm(value - full[path]) <= tolerance, path
