"""Alignments and templates to what a model takes: build, sample, pad, store. numpy only.

A monomer's alignment is sampled here (`sample`), a multimer's in the model; `model_inputs` hides the
difference.
"""

from parafold.features.build import Features, build, model_inputs
from parafold.features.labels import labels
from parafold.features.multimer import chain_order
from parafold.features.pad import bucket
from parafold.features.pickles import read_features_pickle, write_features_pickle
from parafold.features.raw import msa_features, sequence_features
from parafold.features.store import read_features, write_features

__all__ = [
    "Features",
    "bucket",
    "build",
    "chain_order",
    "labels",
    "model_inputs",
    "msa_features",
    "read_features",
    "read_features_pickle",
    "sequence_features",
    "write_features",
    "write_features_pickle",
]
