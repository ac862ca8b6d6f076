"""MSA clusters, masking and extra sequences of one pass of a monomer (suppl. 1.2.6 and 1.2.7 of the paper).

What depends on chance takes a generator, and only its own: results do not depend on the order of passes.
"""

from typing import Any

import numpy as np

from parafold.features.raw import Arrays

_MSA_FEATURES = ("msa", "deletion_matrix", "msa_mask", "msa_row_mask", "bert_mask", "true_msa")
_LETTERS, _MASK_TOKEN = 22, 22  # twenty amino acids, X and gap; then the mask
_SCORED_LETTERS = 21  # agreeing on a gap or a mask counts nothing
_BLOCK_ELEMENTS = 1 << 24  # of the largest temporary of the cluster search: 64 MB as float32


def sample_msa(features: Arrays, max_seq: int, rng: np.random.Generator) -> Arrays:
    """The query and `max_seq - 1` random rows become cluster centres, the others `extra_*`."""
    rows = len(features["msa"])
    order = np.concatenate([[0], 1 + rng.permutation(rows - 1)])
    chosen, others = order[:max_seq], order[max_seq:]
    present = [name for name in _MSA_FEATURES if name in features]
    centres = {name: features[name][chosen] for name in present}
    return features | centres | {"extra_" + name: features[name][others] for name in present}


def make_masked_msa(
    features: Arrays, config: Any, replace_fraction: float, rng: np.random.Generator
) -> Arrays:
    """Suppl. 1.2.7: corrupt a share of the letters, for the model to restore.

    A chosen letter becomes any amino acid, one drawn from the column's profile, or itself, with the
    probabilities `uniform_prob`, `profile_prob` and `same_prob` of `config`; else the mask token. Adds
    bert_mask and true_msa.
    """
    msa = features["msa"]
    chosen = rng.random(msa.shape) < replace_fraction
    truth, columns = msa[chosen], np.nonzero(chosen)[1]
    uniform = np.array([0.05] * 20 + [0.0, 0.0])
    probabilities = np.empty((len(truth), _LETTERS + 1))
    probabilities[:, :_LETTERS] = (
        config.uniform_prob * uniform + config.profile_prob * features["hhblits_profile"][columns]
    )
    probabilities[np.arange(len(truth)), truth] += config.same_prob
    probabilities[:, _MASK_TOKEN] = 1.0 - config.profile_prob - config.same_prob - config.uniform_prob
    steps = probabilities.cumsum(1)
    draw = rng.random((len(truth), 1)) * steps[:, -1:]
    corrupted = msa.copy()
    corrupted[chosen] = (steps <= draw).sum(1)
    return features | {"msa": corrupted, "true_msa": msa, "bert_mask": chosen.astype(np.float32)}


def nearest_neighbor_clusters(features: Arrays) -> Arrays:
    """Give each extra row to the centre that it agrees with in most residues, the first of equals."""
    centres = _one_hot_rows(features["msa"], features["msa_mask"])
    extra, mask = features["extra_msa"], features["extra_msa_mask"]
    block = max(1, _BLOCK_ELEMENTS // centres.shape[1])
    assignment = np.empty(len(extra), np.int32)
    for start in range(0, len(extra), block):
        part = slice(start, start + block)
        assignment[part] = (_one_hot_rows(extra[part], mask[part]) @ centres.T).argmax(1)
    return features | {"extra_cluster_assignment": assignment}


def summarize_clusters(features: Arrays) -> Arrays:
    """Profile [s, r, 23] and mean deletion count [s, r] of each cluster, its (corrupted) centre included."""
    msa, mask = features["msa"], features["msa_mask"]
    extra, extra_mask = features["extra_msa"], features["extra_msa_mask"]
    count, length = msa.shape
    cells = features["extra_cluster_assignment"][:, None].astype(np.intp) * length + np.arange(length)

    def cluster_sum(cells: np.ndarray, weights: np.ndarray, depth: int = 1) -> np.ndarray:
        total = np.bincount(cells.ravel(), weights.ravel(), minlength=count * length * depth)
        return total.astype(np.float32).reshape((count, length, depth)[: 2 + (depth > 1)])

    members = np.float32(1e-6) + (
        mask + cluster_sum(cells, extra_mask)
    )  # this order is the published rounding
    letters = cluster_sum(cells * 23 + extra, extra_mask, 23) + _one_hot(msa, 23)
    deletions = (
        cluster_sum(cells, extra_mask * features["extra_deletion_matrix"]) + features["deletion_matrix"]
    )
    return features | {
        "cluster_profile": letters / members[:, :, None],
        "cluster_deletion_mean": deletions / members,
    }


def crop_extra_msa(features: Arrays, max_extra_msa: int, rng: np.random.Generator) -> Arrays:
    """Keep at most `max_extra_msa` random rows of the extra alignment."""
    chosen = rng.permutation(len(features["extra_msa"]))[:max_extra_msa]
    present = ["extra_" + name for name in _MSA_FEATURES if "extra_" + name in features]
    return features | {name: features[name][chosen] for name in present}


def delete_extra_msa(features: Arrays) -> Arrays:
    """Drop the extra alignment."""
    dropped = {"extra_" + name for name in _MSA_FEATURES}
    return {name: array for name, array in features.items() if name not in dropped}


def make_msa_feat(features: Arrays) -> Arrays:
    """The inputs of the embedder: target_feat [r, 22], msa_feat [s, r, 49 or 25], extra deletions [e, r]."""
    has_break = features["between_segment_residues"].astype(np.float32).clip(0, 1)
    target = [has_break[..., None], _one_hot(features["aatype"], 21)]
    deletions = features["deletion_matrix"]
    msa = [_one_hot(features["msa"], 23), deletions.clip(0, 1)[..., None], _squash(deletions)[..., None]]
    if "cluster_profile" in features:
        msa += [features["cluster_profile"], _squash(features["cluster_deletion_mean"])[..., None]]
    made = {"target_feat": np.concatenate(target, -1), "msa_feat": np.concatenate(msa, -1)}
    if "extra_deletion_matrix" in features:
        extra = features["extra_deletion_matrix"]
        made |= {"extra_has_deletion": extra.clip(0, 1), "extra_deletion_value": _squash(extra)}
    return features | made


def _one_hot(numbers: np.ndarray, depth: int) -> np.ndarray:
    return (numbers[..., None] == np.arange(depth, dtype=numbers.dtype)).astype(np.float32)


def _one_hot_rows(msa: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Rows as vectors whose dot product counts agreeing amino acids, [n, 21 r]."""
    return (_one_hot(msa, _SCORED_LETTERS) * mask[..., None]).reshape(len(msa), -1)


def _squash(deletions: np.ndarray) -> np.ndarray:
    """Suppl. table 1: 2/pi * arctan(d / 3) of deletion counts, float32, with the published rounding."""
    return _arctan(deletions * np.float32(1 / 3)) * np.float32(2 / np.pi)


# arctan(x) = x + x**3 Q(x**2): the coefficients of Q, the highest first, odd and even powers apart.
_Coefficients = tuple[float, float, float, float]
_ODD: _Coefficients = (2.90188402868807e-3, 4.30826172232627e-2, 0.106604725122452, 0.199935793876648)
_EVEN: _Coefficients = (-1.62907354533672e-2, -7.54088833928108e-2, -0.142095789313316, -0.333331435918808)


def _arctan(values: np.ndarray) -> np.ndarray:
    """arctan of non-negative float32 to 2 ulp, with the published pipeline's rounding.

    numpy's own differs from it, and from itself on other processors, in the last bit.
    """
    large = values > 1
    x = np.where(large, np.float32(1) / np.maximum(values, np.float32(1)), values)
    x2 = x * x
    x4 = x2 * x2
    odd, even = (
        ((np.float32(a) * x4 + np.float32(b)) * x4 + np.float32(c)) * x4 + np.float32(d)
        for a, b, c, d in (_ODD, _EVEN)
    )
    small = (odd * x2 + even) * (x * x2) + x
    return np.where(large, np.float32(np.pi / 2) - small, small)
