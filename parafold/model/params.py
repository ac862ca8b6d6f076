"""Parameters: loading published files, checking names and shapes, random ones for a start."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray
from numpy.typing import DTypeLike

from parafold.errors import WeightsError

if TYPE_CHECKING:
    from parafold.model.alphafold import AlphaFold

Params = Mapping[str, Mapping[str, jax.Array | np.ndarray]]

# Initializers that draw each number by itself, and those of them that have a spread.
_SPREAD = (hk.initializers.RandomNormal, hk.initializers.TruncatedNormal)
_ANY_SHAPE = (hk.initializers.Constant, *_SPREAD)
# A program that runs once.
_COMPILED_FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def parameter_shapes(model: AlphaFold) -> dict[str, tuple[int, ...]]:
    """Published name `module path//name` -> shape of every parameter of the model."""
    params = jax.eval_shape(lambda: model.init(0, _tiny_features(model)))
    return {f"{path}//{name}": leaf.shape for path, names in params.items() for name, leaf in names.items()}


def load_npz(path: str | Path, model: AlphaFold) -> Params:
    """Parameters of a published `params_model_*.npz`.

    Raises:
      WeightsError: no such file, not an npz archive, or a parameter is missing, extra or of another shape.
    """
    path = Path(path)
    try:
        # Through zipfile: numpy leaves a damaged archive open, and reads formats that are no archives.
        with zipfile.ZipFile(path) as archive:
            flat = {name.removesuffix(".npy"): _read_array(archive, name) for name in archive.namelist()}
    except FileNotFoundError:
        raise WeightsError(
            f"{path}: no such file; `parafold weights fetch` downloads the published ones"
        ) from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path}: not a parameter file in npz format ({error}); fetch it again") from None
    check_parameters({name: value.shape for name, value in flat.items()}, model, source=str(path))
    params: dict[str, dict[str, np.ndarray]] = {}
    for name, value in flat.items():
        module, _, leaf = name.partition("//")
        params.setdefault(module, {})[leaf] = np.asarray(value, np.float32)
    return params


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def check_parameters(shapes: dict[str, tuple[int, ...]], model: AlphaFold, *, source: str) -> None:
    """Compare names and shapes with those of the model.

    Raises:
      WeightsError: naming the first parameters that are missing, extra or of another shape.
    """
    wanted = parameter_shapes(model)
    problems = {
        "missing": [f"{name} {wanted[name]}" for name in sorted(wanted.keys() - shapes.keys())],
        "not the model's": sorted(shapes.keys() - wanted.keys()),
        "of the wrong shape": [
            f"{name} is {tuple(shapes[name])}, needed {wanted[name]}"
            for name in sorted(wanted.keys() & shapes.keys())
            if tuple(shapes[name]) != tuple(wanted[name])
        ],
    }
    found = [
        f"{len(names)} {what}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for what, names in problems.items()
        if names
    ]
    if found:
        raise WeightsError(
            f"{source} does not fit {model.name}: {'; '.join(found)}; choose the model it is for"
        )


def random_params(model: AlphaFold, seed: int = 0) -> Params:
    """Random parameters from the model's initializers, the same for the same seed and version of JAX.

    The model's `init` compiles one random number generator for each parameter, which takes longer than to
    compile the model. Here one draw serves all parameters whose initializers differ in their spread only.
    """
    leaves, tree = _initialized(model)
    groups: dict[Any, list[_Leaf]] = {}
    for leaf in leaves:
        groups.setdefault(leaf.group, []).append(leaf)
    spreads = [
        np.concatenate([np.full(leaf.size, leaf.init.stddev, np.float32) for leaf in members])
        if isinstance(members[0].init, _SPREAD)
        else None
        for members in groups.values()
    ]

    def draw(key: PRNGKeyArray, spreads: Sequence[Array | None]) -> dict[int, Array]:
        drawn = {}
        for members, spread in zip(groups.values(), spreads, strict=True):
            key, subkey = jax.random.split(key)
            ends = np.cumsum([leaf.size for leaf in members])
            init, shape = members[0].init, members[0].layer_shape
            if isinstance(init, _ANY_SHAPE):
                shape = (int(ends[-1]),)
            if spread is not None:
                init = type(init)(**{**vars(init), "stddev": spread})
            one = hk.transform(lambda init=init, shape=shape: init(shape, jnp.float32)).apply
            keys = jax.random.split(subkey, int(ends[-1]) // math.prod(shape))
            values = jax.vmap(lambda key, one=one: one({}, key))(keys).ravel()
            for leaf, part in zip(members, jnp.split(values, ends[:-1]), strict=True):
                drawn[leaf.place] = part.reshape(leaf.shape)
        return drawn

    drawn = jax.jit(draw, compiler_options=_COMPILED_FAST)(jax.random.PRNGKey(seed), spreads)
    return jax.tree.unflatten(tree, [drawn[leaf.place] for leaf in leaves])


@dataclass(frozen=True)
class _Leaf:
    """A parameter: its place in the tree, and what makes it; in a layer stack `shape` has an axis more."""

    place: int
    init: Any
    layer_shape: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def group(self) -> tuple[Any, ...]:
        """Equal for parameters that one draw can serve."""
        settings = {
            name: value
            for name, value in vars(self.init).items()
            if not (name == "stddev" and isinstance(self.init, _SPREAD))
        }
        shape = None if isinstance(self.init, _ANY_SHAPE) else self.layer_shape
        return type(self.init), tuple(settings.items()), shape


def _initialized(model: AlphaFold) -> tuple[list[_Leaf], Any]:
    """The model's parameters in the order of their tree, and the tree."""
    noted: list[tuple[Any, tuple[int, ...]]] = []

    def note(next_creator, shape, dtype, init, context):
        noted.append((init, tuple(shape)))
        return jnp.full(shape, len(noted) - 1, dtype)

    def forward():
        with hk.custom_creator(note):
            return model.init(0, _tiny_features(model))

    # Each parameter comes back filled with the number of its note: layer stacks change names and shapes.
    filled, tree = jax.tree.flatten(jax.jit(lambda: hk.transform(forward).apply({}, None))())
    numbers = [int(values.ravel()[0]) for values in jax.device_get(filled)]
    return [
        _Leaf(place, *noted[number], shape=values.shape)
        for place, (number, values) in enumerate(zip(numbers, filled, strict=True))
    ], tree


def _tiny_features(model: AlphaFold) -> dict[str, np.ndarray]:
    """All-zero features of the smallest size: parameters do not depend on sizes."""
    length, rows, templates = 4, 2, 1
    evoformer = model.config.model.embeddings_and_evoformer

    def zeros(*shape: int, dtype: DTypeLike = np.float32) -> np.ndarray:
        return np.zeros(shape, dtype)

    if model.multimer:
        rows = evoformer.num_msa + 1
        return {
            **{name: zeros(length) for name in ("seq_mask", "asym_id", "sym_id", "entity_id")},
            **{name: zeros(length, dtype=np.int32) for name in ("aatype", "residue_index")},
            "msa": zeros(rows, length, dtype=np.int32),
            **{name: zeros(rows, length) for name in ("msa_mask", "deletion_matrix", "bert_mask")},
            "cluster_bias_mask": zeros(rows),
            "template_aatype": zeros(templates, length, dtype=np.int32),
            "template_all_atom_positions": zeros(templates, length, 37, 3),
            "template_all_atom_mask": zeros(templates, length, 37),
        }
    features = {
        **{name: zeros(length, dtype=np.int32) for name in ("aatype", "residue_index")},
        "seq_mask": zeros(length),
        "target_feat": zeros(length, 22),
        "msa_feat": zeros(rows, length, 49),
        "true_msa": zeros(rows, length, dtype=np.int32),
        **{name: zeros(rows, length) for name in ("msa_mask", "bert_mask")},
        "extra_msa": zeros(rows, length, dtype=np.int32),
        **{
            name: zeros(rows, length)
            for name in ("extra_msa_mask", "extra_has_deletion", "extra_deletion_value")
        },
        "atom14_atom_exists": zeros(length, 14),
        "atom37_atom_exists": zeros(length, 37),
        "residx_atom14_to_atom37": zeros(length, 14, dtype=np.int32),
        "residx_atom37_to_atom14": zeros(length, 37, dtype=np.int32),
        "template_aatype": zeros(templates, length, dtype=np.int32),
        "template_all_atom_positions": zeros(templates, length, 37, 3),
        "template_all_atom_masks": zeros(templates, length, 37),
        "template_mask": zeros(templates),
        "template_pseudo_beta": zeros(templates, length, 3),
        "template_pseudo_beta_mask": zeros(templates, length),
    }
    return {name: value[None] for name, value in features.items()}
