"""From a chain's raw features to the arrays that a monomer model is given (suppl. 1.2 of the paper)."""

from typing import Any

import numpy as np

from parafold.features import pad, sample, transforms
from parafold.features.raw import Arrays

_CROP_STREAM, _UNKNOWN_STREAM, _PASS_STREAMS = 0, 1, 2


def process(raw: Arrays, data: Any, seed: int, num_res: int) -> Arrays:
    """All passes' features, one after the other on the first axis.

    Args:
      raw: features of one chain.
      data: the published `config.data`, anything with its attributes.
      seed: of the sampling. Each pass has random streams of its own.
      num_res: residues to pad, or to crop, to.

    Returns:
      Arrays whose first axis is num_ensemble * (num_recycle + 1), or num_ensemble where passes share one
      sample.
    """
    base = nonensembled(raw, data, seed)
    passes = data.eval.num_ensemble
    if data.common.resample_msa_in_recycling:
        passes *= data.common.num_recycle + 1
    samples = [ensembled(base, data, seed, index, num_res) for index in range(passes)]
    return {name: np.stack([features[name] for features in samples]) for name in samples[0]}


def nonensembled(raw: Arrays, data: Any, seed: int) -> Arrays:
    """What all passes share."""
    features = transforms.select_raw(raw, data.common.use_templates)
    features = transforms.correct_msa_restypes(features)
    features = transforms.cast_64bit_ints(features)
    features = transforms.squeeze_features(features)
    features = transforms.randomly_replace_msa_with_unknown(features, 0.0, _stream(seed, _UNKNOWN_STREAM))
    features = transforms.make_seq_mask(features)
    features = transforms.make_msa_mask(features)
    features = transforms.make_hhblits_profile(features)
    features["random_crop_to_size_seed"] = _stream(seed, _CROP_STREAM).integers(
        -(2**31), 2**31 - 1, 2, dtype=np.int32
    )
    if data.common.use_templates:
        features = transforms.fix_templates_aatype(features)
        features = transforms.make_template_mask(features)
        features = transforms.make_pseudo_beta(features)
    return transforms.make_atom14_masks(features)


def ensembled(features: Arrays, data: Any, seed: int, index: int, num_res: int) -> Arrays:
    """The sample of pass number `index`."""
    common, evaluation = data.common, data.eval
    clusters = evaluation.max_msa_clusters
    if common.reduce_msa_clusters_by_max_templates:
        clusters -= evaluation.max_templates  # templates' torsion rows take their place in the model
    sampling, masking, cropping = (_stream(seed, _PASS_STREAMS, index, step) for step in range(3))

    features = sample.sample_msa(features, clusters, sampling)
    if hasattr(common, "masked_msa"):
        features = sample.make_masked_msa(
            features, common.masked_msa, evaluation.masked_msa_replace_fraction, masking
        )
    if common.msa_cluster_features:
        features = sample.nearest_neighbor_clusters(features)
        features = sample.summarize_clusters(features)
    if common.max_extra_msa:
        features = sample.crop_extra_msa(features, common.max_extra_msa, cropping)
    else:
        features = sample.delete_extra_msa(features)
    features = pad.select_feat(sample.make_msa_feat(features))
    subsample = bool(getattr(evaluation, "subsample_templates", False))
    features = pad.random_crop_to_size(features, num_res, evaluation.max_templates, subsample)
    return pad.make_fixed_size(features, clusters, common.max_extra_msa, num_res, evaluation.max_templates)


def _stream(seed: int, *path: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=path))
