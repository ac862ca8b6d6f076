"""Model configurations under their published names.

`model_config("model_1_ptm")` returns an `ml_collections.ConfigDict` whose dotted names are those of the
published code, so that published overrides apply as they are. Monomer and multimer are the same tree:
what differs is the value of a field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_collections

from parafold.errors import InputError

# A section of an ml_collections.ConfigDict, whose attributes a type checker cannot know.
Config = Any

_MONOMERS = tuple(f"model_{i}" for i in range(1, 6))
_MULTIMERS = tuple(f"model_{i}_multimer" for i in range(1, 6))

PRESETS: dict[str, tuple[str, ...]] = {
    "monomer": _MONOMERS,
    "monomer_ptm": tuple(f"{m}_ptm" for m in _MONOMERS),
    "multimer_v1": _MULTIMERS,
    "multimer_v2": tuple(f"{m}_v2" for m in _MULTIMERS),
    "multimer": tuple(f"{m}_v3" for m in _MULTIMERS),
}
# The small models of the first steps, and the published models whose architecture they have.
DEMOS = {"demo": "model_1_ptm", "demo_multimer": "model_1_multimer_v3"}
MODEL_NAMES: tuple[str, ...] = (*DEMOS, *(name for names in PRESETS.values() for name in names))

# Published names that steer only how much memory the published code uses (blocks follow from the length
# here), or that name a fixed property of an algorithm. They are accepted; the second kind only unchanged.
_WITHOUT_EFFECT = ("outer_product_mean.chunk_size", "template.subbatch_size", "bfloat16_output")
_FIXED = {
    "orientation": None,
    "equation": None,
    "shared_dropout": True,
    "gating": True,
    "template.attention.gating": False,
    "use_template_unit_vector": False,
}


def _attention(rate: float, heads: int) -> dict[str, Any]:
    return {"dropout_rate": rate, "num_head": heads}


def _pair_updates(channels: int | None, *, fused: bool, factor: int) -> dict[str, Any]:
    """The five pair updates of an Evoformer or template pair block; `channels` is the attention width."""
    attention = _attention(0.25, 4) | ({"key_dim": channels, "value_dim": channels} if channels else {})
    multiplication = {
        "dropout_rate": 0.25,
        "num_intermediate_channel": channels or 128,
        "fuse_projection_weights": fused,
    }
    return {
        "triangle_multiplication_outgoing": multiplication,
        "triangle_multiplication_incoming": dict(multiplication),
        "triangle_attention_starting_node": attention,
        "triangle_attention_ending_node": dict(attention),
        "pair_transition": {"dropout_rate": 0.0, "num_intermediate_factor": factor},
    }


def _resolution_filter() -> dict[str, Any]:
    return {"filter_by_resolution": True, "min_resolution": 0.1, "max_resolution": 3.0}


def _fape(clamp: float, unit: float) -> dict[str, float]:
    return {"atom_clamp_distance": clamp, "loss_unit_distance": unit}


def _embeddings_and_evoformer(*, multimer: bool, fused: bool) -> dict[str, Any]:
    template_updates = _pair_updates(64, fused=fused, factor=2)
    if multimer:  # its template attention takes its width from the pair channels
        for name in ("triangle_attention_starting_node", "triangle_attention_ending_node"):
            template_updates[name] = _attention(0.25, 4)
    template = {
        "enabled": multimer,
        "embed_torsion_angles": multimer,
        "max_templates": 4,
        "dgram_features": {"min_bin": 3.25, "max_bin": 50.75, "num_bins": 39},
        "template_pair_stack": {"num_block": 2} | template_updates,
        "attention": {"num_head": 4} | ({} if multimer else {"key_dim": 64, "value_dim": 64}),
    }
    common = {
        "evoformer_num_block": 48,
        "extra_msa_stack_num_block": 4,
        "msa_channel": 256,
        "extra_msa_channel": 64,
        "pair_channel": 128,
        "seq_channel": 384,
        "prev_pos": {"min_bin": 3.25, "max_bin": 20.75, "num_bins": 15},
        "recycle_features": True,
        "recycle_pos": True,
        "evoformer": {
            "msa_row_attention_with_pair_bias": _attention(0.15, 8),
            "msa_column_attention": _attention(0.0, 8),
            "msa_transition": {"dropout_rate": 0.0, "num_intermediate_factor": 4},
            "outer_product_mean": {"first": multimer, "dropout_rate": 0.0, "num_outer_channel": 32},
        }
        | _pair_updates(None, fused=fused, factor=4),
        "template": template,
    }
    if not multimer:
        return common | {"max_relative_feature": 32}
    template["num_channels"] = 64
    return common | {
        "num_msa": 508,
        "num_extra_msa": 2048,
        "masked_msa": {"profile_prob": 0.1, "same_prob": 0.1, "uniform_prob": 0.1, "replace_fraction": 0.15},
        "use_chain_relative": True,
        "max_relative_chain": 2,
        "max_relative_idx": 32,
    }


def _heads(*, multimer: bool) -> dict[str, Any]:
    structure = {
        "weight": 1.0,
        "num_layer": 8,
        "num_channel": 384,
        "num_head": 12,
        "num_layer_in_transition": 3,
        "num_point_qk": 4,
        "num_point_v": 8,
        "num_scalar_qk": 16,
        "num_scalar_v": 16,
        "dropout": 0.1,
        "position_scale": 20.0 if multimer else 10.0,
        "angle_norm_weight": 0.01,
        "chi_weight": 0.5,
        "clash_overlap_tolerance": 1.5,
        "violation_tolerance_factor": 12.0,
        "structural_violation_loss_weight": 1.0,
        "sidechain": {
            "num_channel": 128,
            "num_residual_block": 2,
            "weight_frac": 0.5,
            "atom_clamp_distance": 10.0,
        },
    }
    if multimer:
        structure["intra_chain_fape"] = _fape(10.0, 10.0)
        structure["interface_fape"] = _fape(1000.0, 20.0)
        structure["sidechain"]["loss_unit_distance"] = 10.0
    else:
        structure["compute_in_graph_metrics"] = True
        structure["fape"] = {"clamp_distance": 10.0, "clamp_type": "relu", "loss_unit_distance": 10.0}
        structure["sidechain"]["length_scale"] = 10.0
    return {
        "distogram": {"first_break": 2.3125, "last_break": 21.6875, "num_bins": 64, "weight": 0.3},
        "experimentally_resolved": {"weight": 0.01} | _resolution_filter(),
        "masked_msa": {"num_output": 22 if multimer else 23, "weight": 2.0},
        "predicted_aligned_error": {
            "max_error_bin": 31.0,
            "num_bins": 64,
            "num_channels": 128,
            "weight": 0.1 if multimer else 0.0,
        }
        | _resolution_filter(),
        "predicted_lddt": {"num_bins": 50, "num_channels": 128, "weight": 0.01} | _resolution_filter(),
        "structure_module": structure,
    }


def _model(*, multimer: bool, fused: bool) -> dict[str, Any]:
    return {
        "embeddings_and_evoformer": _embeddings_and_evoformer(multimer=multimer, fused=fused),
        "heads": _heads(multimer=multimer),
        "global_config": {
            "multimer_mode": multimer,
            "precision": "bfloat16" if multimer else "float32",
            "deterministic": False,
            "eval_dropout": False,
            "use_remat": False,
            "zero_init": True,
            "subbatch_size": 0,
        },
        "num_recycle": 20 if multimer else 3,
        "recycle_early_stop_tolerance": 0.5 if multimer else -1.0,
        "resample_msa_in_recycling": True,
        "num_ensemble_eval": 1,
    }


def _data() -> dict[str, Any]:
    """Sampling of a monomer's features; a multimer samples its MSA inside the model."""
    return {
        "common": {
            "masked_msa": {"profile_prob": 0.1, "same_prob": 0.1, "uniform_prob": 0.1},
            "max_extra_msa": 1024,
            "msa_cluster_features": True,
            "num_recycle": 3,
            "reduce_msa_clusters_by_max_templates": False,
            "resample_msa_in_recycling": True,
            "use_templates": False,
        },
        "eval": {
            "fixed_size": True,
            "subsample_templates": False,
            "masked_msa_replace_fraction": 0.15,
            "max_msa_clusters": 512,
            "max_templates": 4,
            "num_ensemble": 1,
        },
    }


def _demo(*, multimer: bool) -> dict[str, Any]:
    """A small model: what runs, with random parameters, where no weights are given."""
    pair, msa = 32, 64
    evoformer = "model.embeddings_and_evoformer."
    stack = evoformer + "template.template_pair_stack."
    overrides: dict[str, Any] = {
        evoformer + "evoformer_num_block": 4,
        evoformer + "extra_msa_stack_num_block": 2,
        evoformer + "msa_channel": msa,
        evoformer + "extra_msa_channel": 32,
        evoformer + "pair_channel": pair,
        evoformer + "seq_channel": 128,
        evoformer + "evoformer.outer_product_mean.num_outer_channel": 8,
        "model.heads.structure_module.num_channel": 128,
        "model.heads.structure_module.num_head": 4,
        "model.heads.structure_module.sidechain.num_channel": 64,
        "model.global_config.zero_init": False,
    }
    if multimer:
        overrides |= {
            evoformer + "template.num_channels": 32,
            evoformer + "num_msa": 128,
            evoformer + "num_extra_msa": 512,
            "model.global_config.precision": "float32",
            "model.num_recycle": 3,
        }
    else:
        overrides |= {
            evoformer + "template.attention.key_dim": 32,
            evoformer + "template.attention.value_dim": 32,
            "data.eval.max_msa_clusters": 128,
            "data.common.max_extra_msa": 512,
        }
    for update in ("triangle_multiplication_outgoing", "triangle_multiplication_incoming"):
        overrides[f"{evoformer}evoformer.{update}.num_intermediate_channel"] = pair
        overrides[f"{stack}{update}.num_intermediate_channel"] = pair
    for update in () if multimer else ("triangle_attention_starting_node", "triangle_attention_ending_node"):
        overrides[f"{stack}{update}.key_dim"] = pair
        overrides[f"{stack}{update}.value_dim"] = pair
    return overrides


def _differences(name: str) -> dict[str, Any]:
    """What distinguishes one published model from its family (suppl. table 5 of the paper)."""
    number = int(name.split("_")[1])
    evoformer = "model.embeddings_and_evoformer."
    if "multimer" in name:
        if not name.endswith("_v3"):
            return {evoformer + "num_msa": 252, evoformer + "num_extra_msa": 1152}
        return {evoformer + "num_extra_msa": 1152} if number > 3 else {}
    changes: dict[str, Any] = {}
    if number in (1, 3, 4):
        changes["data.common.max_extra_msa"] = 5120
    if number <= 2:
        changes["data.common.reduce_msa_clusters_by_max_templates"] = True
        changes["data.common.use_templates"] = True
        changes[evoformer + "template.enabled"] = True
        changes[evoformer + "template.embed_torsion_angles"] = True
    if name.endswith("_ptm"):
        changes["model.heads.predicted_aligned_error.weight"] = 0.1
    return changes


def model_config(name: str, overrides: Mapping[str, Any] | None = None) -> ml_collections.ConfigDict:
    """Configuration of a published model, or of a small one of the same architecture.

    Args:
      name: `model_1` to `model_5`, with `_ptm`, `_multimer`, `_multimer_v2` or `_multimer_v3`; or `demo`,
        `demo_multimer`.
      overrides: published dotted name -> value, see `apply_overrides`.

    Raises:
      InputError: the name is not a model's, or an override does not apply.
    """
    if name not in MODEL_NAMES:
        raise InputError(f"'{name}' is not a model; use one of {', '.join(MODEL_NAMES)}")
    base = DEMOS.get(name, name)
    multimer = "multimer" in base
    config = ml_collections.ConfigDict({"model": _model(multimer=multimer, fused=base.endswith("_v3"))})
    if not multimer:
        config.data = _data()
    config = apply_overrides(config, _differences(base))
    if name in DEMOS:
        config = apply_overrides(config, _demo(multimer=multimer))
    return apply_overrides(config, overrides or {})


def apply_overrides(
    config: ml_collections.ConfigDict, overrides: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """A copy of `config` with dotted names replaced: `{"model.num_recycle": 1}`.

    All published names are accepted. Those without a meaning here (chunk sizes) change nothing; those that
    name a fixed property (`orientation`) must keep their value. `model.global_config.bfloat16` sets
    `precision`.

    Raises:
      InputError: no such name, a value of another type, or a fixed property changed.
    """
    config = config.copy_and_resolve_references()
    for name, value in overrides.items():
        if name.endswith(_WITHOUT_EFFECT):
            continue
        if name == "model.global_config.bfloat16":
            name, value = "model.global_config.precision", "bfloat16" if value else "float32"
        parent, _, leaf = name.rpartition(".")
        section = config
        for part in parent.split("."):
            section = section.get(part) if isinstance(section, ml_collections.ConfigDict) else None
        optional = leaf in ("key_dim", "value_dim", "crop_size")
        if isinstance(section, ml_collections.ConfigDict) and (leaf in section or optional):
            try:
                section[leaf] = value
            except (TypeError, ValueError) as error:
                raise InputError(f"override {name}={value!r}: {error}") from None
            continue
        fixed = max((key for key in _FIXED if f".{name}".endswith(f".{key}")), key=len, default=None)
        if fixed is None:
            raise InputError(f"override {name}: there is no such configuration name")
        if _FIXED[fixed] is not None and _FIXED[fixed] != value:
            raise InputError(f"override {name}={value!r}: this is fixed to {_FIXED[fixed]!r} in AlphaFold 2")
    return config
