"""Files of a prediction under AlphaFold's names. Importing this loads neither JAX nor matplotlib.

Each function returns the paths that it wrote. Nothing stands under its final name before it is complete.
"""

import dataclasses
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from parafold import confidence
from parafold.errors import InputError
from parafold.features import Features
from parafold.files import atomic_write
from parafold.prediction import RANDOM_NOTE, Prediction
from parafold.protein.structure import to_mmcif, to_pdb

# Prediction fields that are arrays, and AlphaFold's names for them in a result file.
_ARRAYS = {
    "aatype": "aatype",
    "residue_index": "residue_index",
    "chain_index": "chain_index",
    "atom_positions": "structure_module/final_atom_positions",
    "atom_mask": "structure_module/final_atom_mask",
    "plddt": "plddt",
    "pae": "predicted_aligned_error",
}
_CATEGORIES = ((90.0, "H"), (70.0, "M"), (50.0, "L"), (0.0, "D"))  # as AlphaFold writes them


def write_prediction(folder: Path, prediction: Prediction) -> list[Path]:
    """Write result, structure (PDB, mmCIF), pLDDT and PAE of one prediction.

    Raises:
        OutputError: disk full, no permission.
    """
    label = prediction.label
    contents: dict[str, bytes | str] = {
        f"unrelaxed_{label}.pdb": pdb_text(prediction),
        f"unrelaxed_{label}.cif": mmcif_text(prediction),
        f"confidence_{label}.json": confidence_json(prediction),
    }
    if prediction.pae is not None:
        contents[f"pae_{label}.json"] = pae_json(prediction)
    contents[f"result_{label}.safetensors"] = _result(prediction)
    return _write(folder, contents)


def write_pickle(folder: Path, prediction: Prediction) -> Path:
    """Write `result_*.pkl` with the nested dictionary that AlphaFold writes.

    Raises:
        OutputError: disk full, no permission.
    """
    content = pickle.dumps(published_result(prediction), protocol=4)
    return _write(folder, {f"result_{prediction.label}.pkl": content})[0]


def write_ranking(folder: Path, predictions: Sequence[Prediction], features: Features) -> list[Path]:
    """Write `ranked_N`, `ranking_debug.json` and the plots for all predictions of a target.

    Raises:
        OutputError: disk full, no permission.
    """
    from parafold import plots

    ranked = rank(predictions)
    best = ranked[0]
    contents: dict[str, bytes | str] = {}
    for place, prediction in enumerate(ranked):
        contents[f"ranked_{place}.pdb"] = pdb_text(prediction)
        contents[f"ranked_{place}.cif"] = mmcif_text(prediction)
    score = "plddts" if best.iptm is None else "iptm+ptm"
    ranking: dict[str, Any] = {
        score: {prediction.label: prediction.ranking_confidence for prediction in predictions},
        "order": [prediction.label for prediction in ranked],
    }
    contents["ranking_debug.json"] = _json(ranked, ranking)

    title = f"{best.name} (random parameters)" if best.is_random else best.name
    starts = confidence.chain_breaks(best.chain_index)
    mask = features.arrays.get("msa_mask")
    contents["msa_coverage.png"] = plots.msa_coverage(
        np.asarray(features.arrays["msa"]),
        None if mask is None else np.asarray(mask) > 0,
        chain_starts=starts,
        title=best.name,
    )
    contents["plddt.png"] = plots.plddt(
        {prediction.label: prediction.plddt for prediction in ranked}, chain_starts=starts, title=title
    )
    if best.pae is not None and best.max_pae is not None:
        contents["pae.png"] = plots.pae(best.pae, best.max_pae, chain_starts=starts, title=title)
    return _write(folder, contents)


def rank(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Best first; equals keep their order."""
    return sorted(predictions, key=lambda prediction: -prediction.ranking_confidence)


def read_result(path: Path, *, with_outputs: bool = True) -> Prediction:
    """Read a `result_*.safetensors` back.

    Args:
        with_outputs: also the heads' large arrays.

    Raises:
        InputError: the file is missing, damaged, or not a result of parafold.
    """
    try:
        with safetensors.safe_open(path, framework="np") as stream:
            scalars = json.loads((stream.metadata() or {})["prediction"])
            names = set(stream.keys())
            arrays: dict[str, Any] = {
                field: stream.get_tensor(name) if name in names else None for field, name in _ARRAYS.items()
            }
            rest = names - set(_ARRAYS.values()) if with_outputs else set()
            outputs = {name: stream.get_tensor(name) for name in sorted(rest)}
        scalars["chain_ids"] = tuple(scalars["chain_ids"])
        return Prediction(**scalars, **arrays, outputs=outputs)
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: not a complete result of parafold; remove it and run again") from error


def pdb_text(prediction: Prediction) -> str:
    """PDB with pLDDT as B-factors."""
    return to_pdb(prediction.structure(), remarks=_notes(prediction))


def mmcif_text(prediction: Prediction) -> str:
    """mmCIF with pLDDT as B-factors."""
    return to_mmcif(prediction.structure(), prediction.name, notes=_notes(prediction))


def confidence_json(prediction: Prediction) -> str:
    """pLDDT per residue, in the format of AlphaFold and of its database."""
    scores = [round(float(score), 2) for score in prediction.plddt]
    categories = [next(name for lower, name in _CATEGORIES if score >= lower) for score in scores]
    content = {
        "residueNumber": list(range(1, len(scores) + 1)),
        "confidenceScore": scores,
        "confidenceCategory": categories,
    }
    return _json([prediction], content, compact=True)


def pae_json(prediction: Prediction) -> str:
    """The predicted aligned error in Å, in the format of AlphaFold and of its database: a list of one."""
    if prediction.pae is None or prediction.max_pae is None:
        raise ValueError(f"{prediction.label} has no predicted aligned error")
    content = {
        "predicted_aligned_error": np.round(prediction.pae.astype(np.float64), 1).tolist(),
        "max_predicted_aligned_error": prediction.max_pae,
    }
    return f"[{_json([prediction], content, compact=True)}]"


def published_result(prediction: Prediction) -> dict[str, Any]:
    """The nested dictionary that AlphaFold pickles as `result_*.pkl`."""
    result: dict[str, Any] = {}
    for name, value in prediction.outputs.items():
        head, _, key = name.partition("/")
        result.setdefault(head, {})[key] = value
    result["structure_module"] = {
        "final_atom_positions": prediction.atom_positions,
        "final_atom_mask": prediction.atom_mask,
    }
    result["plddt"] = prediction.plddt
    result["num_recycles"] = prediction.num_recycles
    result["ranking_confidence"] = prediction.ranking_confidence
    if prediction.pae is not None:
        # AlphaFold replaces the head's logits by the matrix.
        logits = result["predicted_aligned_error"]["logits"]
        result["aligned_confidence_probs"] = confidence.probabilities(logits)
        result["predicted_aligned_error"] = prediction.pae
        result["max_predicted_aligned_error"] = np.asarray(prediction.max_pae)
        result["ptm"] = np.asarray(prediction.ptm)
    if prediction.iptm is not None:
        result["iptm"] = np.asarray(prediction.iptm)
    return result


def _result(prediction: Prediction) -> bytes:
    arrays = {name: getattr(prediction, field) for field, name in _ARRAYS.items()}
    arrays = {**arrays, **prediction.outputs}
    scalars = {
        field.name: getattr(prediction, field.name)
        for field in dataclasses.fields(prediction)
        if field.name not in {*_ARRAYS, "outputs"}
    }
    return safetensors.numpy.save(
        {name: np.ascontiguousarray(value) for name, value in arrays.items() if value is not None},
        metadata={"prediction": json.dumps(scalars)},
    )


def _notes(prediction: Prediction) -> list[str]:
    warning = [RANDOM_NOTE] if prediction.is_random else []
    return [
        *warning,
        f"Predicted by parafold, model {prediction.model}, seed {prediction.seed}.",
        f"Parameters: {prediction.weights}.",
        f"Mean pLDDT {prediction.mean_plddt:.2f}; B-factors are pLDDT (0 to 100).",
    ]


def _json(predictions: Sequence[Prediction], content: Mapping[str, Any], *, compact: bool = False) -> str:
    warning = {"warning": RANDOM_NOTE} if any(p.is_random for p in predictions) else {}
    content = {**content, **warning}
    return json.dumps(content, separators=(",", ":")) if compact else json.dumps(content, indent=4) + "\n"


def _write(folder: Path, contents: Mapping[str, bytes | str]) -> list[Path]:
    for name, content in contents.items():
        atomic_write(folder / name, content)
    return [folder / name for name in contents]
