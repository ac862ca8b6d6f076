"""Training losses: Suppl. Sec. 1.9, of the structure module and of the heads.

Each loss is a pure function of a head's output, the batch and the head's config section. True coordinates
come from `all_atom_positions` and `all_atom_mask` in the batch; whatever else the losses need is derived from
them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from parafold.model import all_atom
from parafold.model.comparison import alternative_naming_is_better, frame_aligned_point_error, lddt
from parafold.model.config import Config
from parafold.model.primitives import masked_mean
from parafold.model.rigid import Rigid
from parafold.model.violations import Atoms, structural_violations, violation_loss, violation_metrics
from parafold.protein import residue

Batch = Mapping[str, Array]
Outputs = dict[str, Any]


@dataclass(frozen=True)
class Targets:
    """True structure, with ambiguous atoms named as they fit a prediction best (suppl. alg. 26).

    Attributes:
      backbone: backbone frames, [r].
      backbone_mask: 1 where they are known.
      frames: frames of all rigid groups, [r, 8].
      frames_mask: 1 where they are known.
      atoms: positions in 14 slots, Å.
      atoms_mask: known atoms.
      alternative_atoms_mask: known atoms when all ambiguous names are swapped.
      alternative_naming: 1 where names were swapped.
      chi: chi angles.
      chi_mask: 1 where they are known.
    """

    backbone: Rigid
    backbone_mask: Float[Array, " r"]
    frames: Rigid
    frames_mask: Float[Array, "r 8"]
    atoms: Float[Array, "r 14 3"]
    atoms_mask: Float[Array, "r 14"]
    alternative_atoms_mask: Float[Array, "r 14"]
    alternative_naming: Float[Array, " r"]
    chi: Float[Array, "r 4"]
    chi_mask: Float[Array, "r 4"]

    @classmethod
    def of(cls, batch: Batch, predicted: Float[Array, "r 14 3"]) -> "Targets":
        """From the true atoms in the batch and the predicted ones."""
        aatype, positions, mask = batch["aatype"], batch["all_atom_positions"], batch["all_atom_mask"]
        backbone, backbone_mask = all_atom.backbone_rigids(positions, mask)
        groups = all_atom.rigid_groups(aatype, positions, mask)
        atoms, atoms_mask = all_atom.atom37_to_atom14(positions, mask, aatype)
        swapped, swapped_mask = all_atom.alternative_atom14(atoms, atoms_mask, aatype)
        chi, chi_mask = all_atom.chi_angles(aatype, positions, mask)
        swap = alternative_naming_is_better(
            predicted, atoms, swapped, atoms_mask, all_atom.atom14_is_ambiguous(aatype)
        )

        def choose(as_named, alternative):
            use = swap.reshape(-1, *(1,) * (as_named.ndim - 1))
            return (1.0 - use) * as_named + use * alternative

        alternative = groups.alternative_frames
        return cls(
            backbone=backbone,
            backbone_mask=backbone_mask,
            frames=Rigid(
                choose(groups.frames.rotation, alternative.rotation),
                choose(groups.frames.translation, alternative.translation),
            ),
            frames_mask=groups.frames_mask,
            atoms=choose(atoms, swapped),
            atoms_mask=choose(atoms_mask, swapped_mask),
            alternative_atoms_mask=swapped_mask,
            alternative_naming=swap,
            chi=chi,
            chi_mask=chi_mask,
        )


def frames_from_output(x: Float[Array, "*n"]) -> Rigid:
    """Frames from any published encoding: quaternion and translation, 12 numbers, or a 3 x 4 matrix."""
    decode = {7: Rigid.from_tensor7, 12: Rigid.from_tensor12, 4: Rigid.from_matrix}
    return decode[x.shape[-1]](x)


def _is_multimer(config: Config) -> bool:
    """Whether the section tells pairs of residues within and between chains apart."""
    return "intra_chain_fape" in config


def _backbone_loss(
    trajectory: Rigid, targets: Targets, batch: Batch, config: Config
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Suppl. Alg. 20, line 17: backbone FAPE, averaged over the layers, and that of the last layer.

    With several chains, pairs within a chain and pairs between chains are averaged and clamped apart.
    """
    mask = targets.backbone_mask[:, None] * targets.backbone_mask[None, :]

    def fape(length_scale, clamp_distance, mask, clip):
        def of_layer(frames):
            return frame_aligned_point_error(
                (frames, frames.translation),
                (targets.backbone, targets.backbone.translation),
                mask,
                length_scale=length_scale,
                clamp_distance=clamp_distance,
                clip=clip,
            )

        return jax.vmap(of_layer)(trajectory)

    if _is_multimer(config):
        same_chain = (batch["asym_id"][:, None] == batch["asym_id"][None, :]).astype(jnp.float32)
        within, between = config.intra_chain_fape, config.interface_fape
        per_layer = fape(
            within.loss_unit_distance, within.atom_clamp_distance, mask * same_chain, True
        ) + fape(between.loss_unit_distance, between.atom_clamp_distance, mask * (1.0 - same_chain), True)
    else:
        unit = config.fape.loss_unit_distance
        per_layer = fape(unit, config.fape.clamp_distance, mask, False)
        if "use_clamped_fape" in batch:
            share = jnp.asarray(batch["use_clamped_fape"], jnp.float32)
            per_layer = per_layer * share + fape(unit, None, mask, False) * (1.0 - share)
    return jnp.mean(per_layer), per_layer[-1]


def _sidechain_fape(sidechains: Mapping[str, Array], targets: Targets, config: Config) -> Float[Array, ""]:
    """FAPE of the last layer's atoms in the frames of all rigid groups."""
    multimer = _is_multimer(config)
    # The published multimer code scores the atoms known under swapped names even where names were kept.
    atoms_mask = targets.alternative_atoms_mask if multimer else targets.atoms_mask
    unit = config.sidechain.loss_unit_distance if multimer else config.sidechain.length_scale

    def flat(frames):
        return Rigid(frames.rotation.reshape(-1, 3, 3), frames.translation.reshape(-1, 3))

    return frame_aligned_point_error(
        (flat(frames_from_output(sidechains["frames"][-1])), sidechains["atom_pos"][-1].reshape(-1, 3)),
        (flat(targets.frames), targets.atoms.reshape(-1, 3)),
        targets.frames_mask.reshape(-1, 1) * atoms_mask.reshape(1, -1),
        length_scale=unit,
        clamp_distance=config.sidechain.atom_clamp_distance,
        clip=multimer,
    )


def _torsion_loss(
    sidechains: Mapping[str, Array], targets: Targets, aatype: Int[Array, " r"], seq_mask: Float[Array, " r"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Suppl. Alg. 27, torsion angle loss: of the chi angles, and of the lengths before normalization."""
    chi = sidechains["angles_sin_cos"][:, :, 3:]
    true = jnp.stack([jnp.sin(targets.chi), jnp.cos(targets.chi)], axis=-1)
    pi_periodic = all_atom.by_residue_type(residue.CHI_PI_PERIODIC.astype(np.float32), aatype)
    half_turned = true * (1.0 - 2.0 * pi_periodic[..., None])
    error = jnp.minimum(
        jnp.sum(jnp.square(true - chi), axis=-1), jnp.sum(jnp.square(half_turned - chi), axis=-1)
    )
    length = jnp.sqrt(jnp.sum(jnp.square(sidechains["unnormalized_angles_sin_cos"]), axis=-1) + 1e-6)
    return (
        masked_mean(targets.chi_mask[None], error),
        masked_mean(seq_mask[None, :, None], jnp.abs(length - 1.0)),
    )


def structure_module_loss(value: Outputs, batch: Batch, config: Config) -> Outputs:
    """Suppl. Sec. 1.9.1 to 1.9.4 and 1.9.11: the structure module's loss, its parts and its metrics.

    A config section with `intra_chain_fape` makes it the multimer's, which tells chains apart by `asym_id`.
    The true chains must already be in the order of the predicted ones.

    Args:
      value: the structure module's outputs.
      batch: `aatype`, `residue_index`, `seq_mask`, `all_atom_positions`, `all_atom_mask`; a multimer's also
        `asym_id`; `use_clamped_fape` (0 to 1) optionally.
      config: section `model.heads.structure_module`.

    Returns:
      `loss`; `bb_loss`, `fape`, `sidechain_fape`, `chi_loss`, `angle_norm_loss`; `metrics`; `violations`;
      `alt_naming_is_better`, `renamed_atom14_gt_positions`, `renamed_atom14_gt_exists`.
    """
    aatype, seq_mask = batch["aatype"], jnp.asarray(batch["seq_mask"], jnp.float32)
    predicted, sidechains = value["final_atom14_positions"], value["sidechains"]
    targets = Targets.of(batch, predicted)
    multimer = _is_multimer(config)
    atoms = Atoms(
        positions=predicted,
        mask=all_atom.atom14_mask(aatype) * seq_mask[:, None],
        aatype=aatype,
        residue_index=batch["residue_index"],
        asym_id=batch["asym_id"] if multimer else None,
    )
    violations = structural_violations(
        atoms,
        tolerance_factor=config.violation_tolerance_factor,
        overlap_tolerance=config.clash_overlap_tolerance,
        multimer=multimer,
    )
    backbone, fape = _backbone_loss(frames_from_output(value["traj"]), targets, batch, config)
    sidechain_fape = _sidechain_fape(sidechains, targets, config)
    chi, angle_norm = _torsion_loss(sidechains, targets, aatype, seq_mask)
    share = config.sidechain.weight_frac
    loss = (1.0 - share) * backbone + share * sidechain_fape
    loss = loss + config.chi_weight * chi + config.angle_norm_weight * angle_norm
    loss = loss + config.structural_violation_loss_weight * violation_loss(violations, atoms.mask)
    return {
        "loss": loss,
        "bb_loss": backbone,
        "fape": fape,
        "sidechain_fape": sidechain_fape,
        "chi_loss": chi,
        "angle_norm_loss": angle_norm,
        "metrics": violation_metrics(atoms, violations, seq_mask),
        "violations": violations,
        "alt_naming_is_better": targets.alternative_naming,
        "renamed_atom14_gt_positions": targets.atoms,
        "renamed_atom14_gt_exists": targets.atoms_mask,
    }


def cross_entropy(logits: Float[Array, "*n classes"], labels: Int[Array, "*n"]) -> Float[Array, "*n"]:
    """Softmax cross entropy with class numbers; a number outside of the classes costs nothing."""
    one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return -jnp.sum(one_hot * jax.nn.log_softmax(logits), axis=-1)


def _weighted_mean(error: Float[Array, "*n"], weight: Float[Array, "*n"], eps: float) -> Float[Array, ""]:
    return jnp.sum(error * weight) / (eps + jnp.sum(weight))


def _resolution_filter(loss: Float[Array, ""], batch: Batch, config: Config) -> Float[Array, ""]:
    """Zero where the experiment does not resolve atoms well; NMR and distillation have resolution 0."""
    if not config.filter_by_resolution:
        return loss
    resolution = batch["resolution"]
    good = (resolution >= config.min_resolution) & (resolution <= config.max_resolution)
    return loss * good.astype(jnp.float32)


def distogram_loss(value: Outputs, batch: Batch) -> Outputs:
    """Suppl. Sec. 1.9.8: cross entropy of the binned distances between CB atoms; also `true_dist`, Å."""
    aatype = batch["aatype"]
    points = all_atom.pseudo_beta(aatype, batch["all_atom_positions"])
    mask = all_atom.pseudo_beta_mask(aatype, batch["all_atom_mask"])
    squared = all_atom.squared_distances(points, points)
    label = jnp.sum(squared[..., None] > jnp.square(value["bin_edges"]), axis=-1)
    errors = cross_entropy(value["logits"], label)
    loss = _weighted_mean(errors, mask[:, None] * mask[None, :], 1e-6)
    return {"loss": loss, "true_dist": jnp.sqrt(1e-6 + squared)}


def masked_msa_loss(value: Outputs, batch: Batch) -> Outputs:
    """Suppl. Sec. 1.9.9: cross entropy of the alignment's letters that were masked or replaced."""
    errors = cross_entropy(value["logits"], batch["true_msa"])
    return {"loss": _weighted_mean(errors, batch["bert_mask"].astype(jnp.float32), 1e-8)}


def experimentally_resolved_loss(value: Outputs, batch: Batch, config: Config) -> Outputs:
    """Suppl. Sec. 1.9.10: which of a residue's atoms the experiment resolved."""
    logits, label = value["logits"], batch["all_atom_mask"].astype(jnp.float32)
    exists = all_atom.atom37_mask(batch["aatype"]) * batch["seq_mask"][:, None]
    errors = -label * jax.nn.log_sigmoid(logits) - (1.0 - label) * jax.nn.log_sigmoid(-logits)
    return {"loss": _resolution_filter(_weighted_mean(errors, exists, 1e-8), batch, config)}


def predicted_lddt_loss(value: Outputs, structure: Outputs, batch: Batch, config: Config) -> Outputs:
    """Suppl. Sec. 1.9.6 and Alg. 29: cross entropy of the binned lDDT of each CA.

    Args:
      value: the head's output.
      structure: the structure module's output.
      batch: the batch.
      config: section `model.heads.predicted_lddt`.
    """
    ca = all_atom.CA
    known = batch["all_atom_mask"][:, ca].astype(jnp.float32)
    predicted = jax.lax.stop_gradient(structure["final_atom_positions"])[:, ca]
    score = lddt(predicted, batch["all_atom_positions"][:, ca], known, per_residue=True)
    num_bins = value["logits"].shape[-1]
    label = jnp.minimum(jnp.floor(score * num_bins).astype(jnp.int32), num_bins - 1)
    loss = _weighted_mean(cross_entropy(value["logits"], label), known, 1e-8)
    return {"loss": _resolution_filter(loss, batch, config)}


def predicted_aligned_error_loss(value: Outputs, structure: Outputs, batch: Batch, config: Config) -> Outputs:
    """Suppl. Sec. 1.9.7: cross entropy of the binned error of each CA seen from each backbone frame.

    Args:
      value: the head's output.
      structure: the structure module's output.
      batch: the batch.
      config: section `model.heads.predicted_aligned_error`.
    """
    predicted = frames_from_output(structure["traj"][-1])
    true, mask = all_atom.backbone_rigids(batch["all_atom_positions"], batch["all_atom_mask"])
    local = [
        Rigid(f.rotation[:, None], f.translation[:, None]).apply_inverse(f.translation[None])
        for f in (predicted, true)
    ]
    squared = jax.lax.stop_gradient(jnp.sum(jnp.square(local[0] - local[1]), axis=-1))
    label = jnp.sum(squared[..., None] > jnp.square(value["breaks"]), axis=-1)
    loss = _weighted_mean(cross_entropy(value["logits"], label), mask[:, None] * mask[None, :], 1e-8)
    return {"loss": _resolution_filter(loss, batch, config)}


def model_loss(outputs: Outputs, batch: Batch, heads: Config) -> tuple[Float[Array, ""], dict[str, Outputs]]:
    """Suppl. Sec. 1.9, eq. 7: the weighted sum of all heads' losses, and what each head's loss gives.

    Args:
      outputs: the model's outputs by head; heads that are absent count nothing.
      batch: one example, without leading axes.
      heads: config section `model.heads`.
    """
    structure = outputs["structure_module"]
    functions = {
        "distogram": lambda value, c: distogram_loss(value, batch),
        "experimentally_resolved": lambda value, c: experimentally_resolved_loss(value, batch, c),
        "masked_msa": lambda value, c: masked_msa_loss(value, batch),
        "predicted_aligned_error": lambda value, c: predicted_aligned_error_loss(value, structure, batch, c),
        "predicted_lddt": lambda value, c: predicted_lddt_loss(value, structure, batch, c),
        "structure_module": lambda value, c: structure_module_loss(value, batch, c),
    }
    parts = {
        name: function(outputs[name], heads[name])
        for name, function in functions.items()
        if name in outputs and heads[name].weight
    }
    total = sum((heads[name].weight * part["loss"] for name, part in parts.items()), jnp.zeros(()))
    return total, parts
