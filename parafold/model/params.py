"""Parameters: loading published files, checking names and shapes, random ones for a start."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from numpy.typing import DTypeLike

from parafold.errors import WeightsError

if TYPE_CHECKING:
    from parafold.model.alphafold import AlphaFold

Params = Mapping[str, Mapping[str, jax.Array | np.ndarray]]


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
        with np.load(path, allow_pickle=False) as file:
            flat = {name: file[name] for name in file.files}
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
    """Random parameters from the model's initializers, the same for the same seed and version of JAX."""
    return jax.jit(lambda key: model.init(key, _tiny_features(model)))(jax.random.PRNGKey(seed))


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
