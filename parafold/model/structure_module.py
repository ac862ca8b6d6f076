"""Suppl. Sec. 1.8: from the single and pair representations to atom positions.

Everything here is float32 with full-precision products, whatever the precision of the rest of the model, and
runs whole on every device. Monomer and multimer are the same algorithm; their checkpoints differ in how the
projections of the attention are laid out and in one regularization.
"""

import math
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from parafold.model import all_atom
from parafold.model.blocks import fill
from parafold.model.comparison import distance
from parafold.model.config import Config
from parafold.model.context import Context
from parafold.model.primitives import LayerNorm, Linear, dropout
from parafold.model.rigid import Rigid, sum_terms

_MASKED_LOGIT = -1e5
# Arrays of the logits' size that the compiled program holds at once (partial sums of the points' terms).
_LOGIT_COPIES = 10
# Inverse of softplus at 1.
_UNIT_POINT_WEIGHT = math.log(math.e - 1.0)


@jax.checkpoint
def _squared_point_distances(
    query: Float[Array, "i h p 3"], key: Float[Array, "j h p 3"]
) -> Float[Array, "i h j"]:
    """Squared distances summed over the points of each head.

    Term by term, so that no array has a points axis besides i, h and j: neither here, nor, recomputed, in the
    backward pass.
    """
    points = [(p, axis) for p in range(query.shape[2]) for axis in range(3)]
    return sum_terms(
        [
            jnp.square(query[:, :, None, p, axis] - key[None, :, :, p, axis].swapaxes(1, 2))
            for p, axis in points
        ]
    )


class InvariantPointAttention(hk.Module):
    """Suppl. Alg. 22, invariant point attention."""

    def __init__(
        self, config: Config, ctx: Context, *, multimer: bool, name: str = "invariant_point_attention"
    ):
        super().__init__(name=name)
        self.config = config
        self.ctx = ctx
        self.multimer = multimer

    def __call__(
        self,
        single: Float[Array, "r c_s"],
        pair: Float[Array, "r r c_z"],
        mask: Float[Array, " r"],
        frames: Rigid,
    ) -> Float[Array, "r c"]:
        """Update of the single representation.

        Args:
          single: single representation.
          pair: normalized pair representation.
          mask: residues that exist.
          frames: backbone frames, [r], in the module's own unit of length.
        """
        c = self.config
        residues = single.shape[0]
        project = self._separate_projections if self.multimer else self._fused_projections
        (q, k, v), local_points = project(single)
        q_points, k_points, v_points = (frames[:, None, None].apply(p) for p in local_points)

        # Each of the three terms gets a third of the logits' variance.
        point_weights = jax.nn.softplus(
            hk.get_parameter(
                "trainable_point_weights", (c.num_head,), init=hk.initializers.Constant(_UNIT_POINT_WEIGHT)
            )
        ) * math.sqrt(1.0 / (3.0 * c.num_point_qk * 4.5))
        scalar_weight, pair_weight = math.sqrt(1.0 / (3.0 * c.num_scalar_qk)), math.sqrt(1.0 / 3.0)
        pair_bias = Linear(c.num_head, name="attention_2d")
        project_out = Linear(c.num_channel, init=self.ctx.final_init, name="output_projection")

        def attend(pair, q, q_points, rotation, translation, query_mask):
            """The output of a block of queries; keys and values are whole."""
            logits = jnp.einsum("ihc,jhc->ihj", q * scalar_weight, k)
            logits -= 0.5 * point_weights[:, None] * _squared_point_distances(q_points, k_points)
            logits += pair_weight * pair_bias(pair).swapaxes(1, 2)
            logits += _MASKED_LOGIT * (1.0 - query_mask[:, None, None] * mask)
            weights = jax.nn.softmax(logits, axis=-1)
            points = jnp.einsum("ihj,jhpx->ihpx", weights, v_points)
            points = Rigid(rotation, translation)[:, None, None].apply_inverse(points)
            features = [
                jnp.einsum("ihj,jhc->ihc", weights, v),
                jnp.moveaxis(points, -1, 1),
                distance(jnp.sum(jnp.square(points), axis=-1), 1e-8, clip=self.multimer),
                jnp.einsum("ihj,ijc->ihc", weights, pair),
            ]
            return project_out(jnp.concatenate([x.reshape(pair.shape[0], -1) for x in features], axis=-1))

        queries = (q, q_points, frames.rotation, frames.translation, mask)
        out = jnp.zeros((residues, c.num_channel), jnp.float32)
        row_bytes = _LOGIT_COPIES * 4 * c.num_head * residues
        return fill(out, attend, pair, *queries, axis=0, out_axis=0, row_bytes=row_bytes, ctx=self.ctx)

    @hk.transparent
    def _fused_projections(self, single):
        """Monomer: keys and values in one map; points as one block each of x, y and z, heads within."""
        c = self.config
        residues, heads = single.shape[0], c.num_head

        def scalars(channels, name):
            return Linear(heads * channels, name=name)(single).reshape(residues, heads, channels)

        def points(number, name):
            flat = Linear(3 * heads * number, name=name)(single)
            return jnp.moveaxis(flat.reshape(residues, 3, heads, number), 1, -1)

        q = scalars(c.num_scalar_qk, "q_scalar")
        k, v = jnp.split(scalars(c.num_scalar_qk + c.num_scalar_v, "kv_scalar"), [c.num_scalar_qk], axis=-1)
        q_points = points(c.num_point_qk, "q_point_local")
        kv_points = points(c.num_point_qk + c.num_point_v, "kv_point_local")
        k_points, v_points = jnp.split(kv_points, [c.num_point_qk], axis=2)
        return (q, k, v), (q_points, k_points, v_points)

    @hk.transparent
    def _separate_projections(self, single):
        """Multimer: one map each, no bias for scalars; points as blocks of x, y and z within each head."""
        c = self.config
        residues, heads = single.shape[0], c.num_head

        def scalars(channels, name):
            return Linear((heads, channels), use_bias=False, name=f"{name}_scalar_projection")(single)

        def points(number, name):
            with hk.name_scope(f"{name}_point_projection"):
                flat = Linear((heads, 3 * number), name="point_projection")(single)
            return jnp.moveaxis(flat.reshape(residues, heads, 3, number), 2, -1)

        return (
            (scalars(c.num_scalar_qk, "q"), scalars(c.num_scalar_qk, "k"), scalars(c.num_scalar_v, "v")),
            (points(c.num_point_qk, "q"), points(c.num_point_qk, "k"), points(c.num_point_v, "v")),
        )


class SideChains(hk.Module):
    """Suppl. Alg. 20, lines 11-14: torsion angles from the single representation, and atoms from these."""

    def __init__(self, config: Config, ctx: Context, *, name: str = "rigid_sidechain"):
        super().__init__(name=name)
        self.config = config
        self.ctx = ctx

    def __call__(
        self,
        frames: Rigid,
        act: Float[Array, "r c"],
        initial_act: Float[Array, "r c_s"],
        aatype: Int[Array, " r"],
    ) -> dict[str, Any]:
        """Torsion angles, frames of all rigid groups (`Rigid`, [r, 8]) and atom positions in 14 slots, Å."""
        channels = self.config.num_channel
        x = sum_terms([Linear(channels, name="input_projection")(jax.nn.relu(a)) for a in (act, initial_act)])
        for _ in range(self.config.num_residual_block):
            y = Linear(channels, init="relu", name="resblock1")(jax.nn.relu(x))
            x += Linear(channels, init=self.ctx.final_init, name="resblock2")(jax.nn.relu(y))
        angles = Linear(14, name="unnormalized_angles")(jax.nn.relu(x)).reshape(-1, 7, 2)
        squared = jnp.sum(jnp.square(angles), axis=-1, keepdims=True)
        sin_cos = angles / jnp.sqrt(jnp.maximum(squared, 1e-12))
        groups = all_atom.torsion_angles_to_frames(aatype, frames, sin_cos)
        return {
            "angles_sin_cos": sin_cos,
            "unnormalized_angles_sin_cos": angles,
            "frames": groups,
            "atom_pos": all_atom.frames_to_atom14(aatype, groups),
        }


class FoldIteration(hk.Module):
    """Suppl. Alg. 20, lines 5-14: one layer of the structure module."""

    def __init__(self, config: Config, ctx: Context, *, multimer: bool, name: str = "fold_iteration"):
        super().__init__(name=name)
        self.config = config
        self.ctx = ctx
        self.multimer = multimer

    def __call__(
        self,
        act: Float[Array, "r c"],
        initial_act: Float[Array, "r c_s"],
        pair: Float[Array, "r r c_z"],
        mask: Float[Array, " r"],
        frames: Rigid,
        aatype: Int[Array, " r"],
    ) -> tuple[Float[Array, "r c"], Rigid, dict[str, Any]]:
        """New activations, new backbone frames (in the module's own unit of length), and side chains in Å."""
        c = self.config
        rate = c.dropout if self.ctx.dropout and self.ctx.is_training else 0.0
        act += InvariantPointAttention(c, self.ctx, multimer=self.multimer)(act, pair, mask, frames)
        act = LayerNorm(name="attention_layer_norm")(dropout(act, rate))
        x = act
        for i in range(c.num_layer_in_transition):
            last = i == c.num_layer_in_transition - 1
            x = Linear(c.num_channel, init=self.ctx.final_init if last else "relu", name="transition")(x)
            x = x if last else jax.nn.relu(x)
        act = LayerNorm(name="transition_layer_norm")(dropout(act + x, rate))
        frames = frames.update(self._backbone_step(act))
        sidechains = SideChains(c.sidechain, self.ctx)(
            frames.scale_translation(c.position_scale), act, initial_act, aatype
        )
        return act, frames, sidechains

    @hk.transparent
    def _backbone_step(self, act: Float[Array, "r c"]) -> Float[Array, "r 6"]:
        if not self.multimer:
            return Linear(6, init=self.ctx.final_init, name="affine_update")(act)
        with hk.name_scope("quat_rigid"):
            return Linear(6, init=self.ctx.final_init, name="rigid")(act)


class StructureModule(hk.Module):
    """Suppl. Alg. 20, structure module: the same layer, applied `num_layer` times."""

    def __init__(self, config: Config, ctx: Context, *, multimer: bool, name: str = "structure_module"):
        super().__init__(name=name)
        self.config = config
        self.ctx = ctx
        self.multimer = multimer

    def __call__(
        self,
        single: Float[Array, "r c_s"],
        pair: Float[Array, "r r c_z"],
        aatype: Int[Array, " r"],
        seq_mask: Num[Array, " r"],
    ) -> dict[str, Any]:
        """Structure and its trajectory under the published names, float32, Å.

        Args:
          single: single representation, any float type.
          pair: pair representation, any float type.
          aatype: residue types.
          seq_mask: residues that exist.

        Returns:
          `representations/structure_module` [r, c]: for the pLDDT head.
          `traj`: backbone frames of all layers; monomer [layers, r, 7] (quaternion, translation), multimer
          [layers, r, 3, 4]; the last as `final_affines` or `final_rigids`.
          `sidechains`: `angles_sin_cos`, `unnormalized_angles_sin_cos` [layers, r, 7, 2], `atom_pos`
          [layers, r, 14, 3], `frames` (monomer [layers, r, 8, 12], multimer [layers, r, 8, 3, 4]).
          `final_atom14_positions`, `final_atom14_mask`, `final_atom_positions`, `final_atom_mask`.
        """
        c = self.config
        mask = seq_mask.astype(jnp.float32)
        encode_backbone = Rigid.to_matrix if self.multimer else Rigid.to_tensor7
        encode_group = Rigid.to_matrix if self.multimer else Rigid.to_tensor12
        # The default precision of an accelerator's products would move atoms by hundredths of an Å.
        with jax.default_matmul_precision("highest"):
            initial = LayerNorm(name="single_layer_norm")(single, jnp.float32)
            act = Linear(c.num_channel, name="initial_projection")(initial)
            pair = LayerNorm(name="pair_layer_norm")(pair, jnp.float32)
            layer = FoldIteration(c, self.ctx, multimer=self.multimer)

            def step(carry, _):
                act, frames, sidechains = layer(carry[0], initial, pair, mask, carry[1], aatype)
                sidechains["frames"] = encode_group(sidechains["frames"])
                backbone = encode_backbone(frames.scale_translation(c.position_scale))
                return (act, frames.stop_rotation_gradient()), (backbone, sidechains)

            start = act, Rigid.identity(mask.shape)
            (act, _), (trajectory, sidechains) = hk.scan(step, start, None, length=c.num_layer)

        positions = sidechains["atom_pos"][-1]
        atom37_mask = all_atom.atom37_mask(aatype) * mask[:, None]
        return {
            "representations": {"structure_module": act},
            "traj": trajectory,
            "sidechains": sidechains,
            "final_rigids" if self.multimer else "final_affines": trajectory[-1],
            "final_atom14_positions": positions,
            "final_atom14_mask": all_atom.atom14_mask(aatype) * mask[:, None],
            "final_atom_positions": all_atom.atom14_to_atom37(positions, aatype) * atom37_mask[..., None],
            "final_atom_mask": atom37_mask,
        }
