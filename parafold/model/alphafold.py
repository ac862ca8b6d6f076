"""AlphaFold 2: recycling and ensembling around the Evoformer, the structure module and the heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from parafold.errors import FeaturesError
from parafold.model import heads, losses
from parafold.model.config import Config, apply_overrides, model_config
from parafold.model.context import Context
from parafold.model.embedders import Evoformer
from parafold.model.params import Params, load_npz
from parafold.model.primitives import masked_mean
from parafold.model.seams import Seams
from parafold.model.structure_module import StructureModule
from parafold.protein.residue import ATOM_ORDER, ATOM_TYPES

Batch = dict[str, Array]
Outputs = dict[str, Any]


class Previous(NamedTuple):
    """What one pass hands to the next: Å, and `pair` sharded along axis 0."""

    positions: Float[Array, "r 37 3"]
    msa_first_row: Float[Array, "r c_m"]
    pair: Float[Array, "i r c_z"]


class AlphaFoldIteration(hk.Module):
    """Suppl. Alg. 2, one pass: averaged representations of the ensemble, then the structure and the heads."""

    def __init__(self, config: Config, ctx: Context):
        super().__init__(name="alphafold_iteration")
        self.config = config
        self.ctx = ctx
        self.multimer = config.global_config.multimer_mode

    def __call__(
        self, ensemble: Batch, previous: Previous, key: PRNGKeyArray | None
    ) -> tuple[Outputs, Batch]:
        """Outputs by head, with `representations`, and the labels of the masked-MSA head.

        `ensemble` has a leading ensemble axis for a monomer and none for a multimer, whose elements differ
        by their key only.
        """
        first = ensemble if self.multimer else jax.tree.map(lambda x: x[0], ensemble)
        representations, msa_labels = self._representations(ensemble, first, previous._asdict(), key)
        pair, seams = representations["pair"], self.ctx.seams
        config = self.config.heads

        structure_module = StructureModule(config.structure_module, self.ctx, multimer=self.multimer)
        structure = structure_module(
            representations["single"], seams.gather(pair, axis=0), first["aatype"], first["seq_mask"]
        )
        representations |= structure.pop("representations")
        out: Outputs = {"structure_module": structure}
        inputs = {
            "distogram": (heads.DistogramHead, pair),
            "masked_msa": (heads.MaskedMsaHead, representations["msa"]),
            "experimentally_resolved": (heads.ExperimentallyResolvedHead, representations["single"]),
            "predicted_lddt": (heads.PredictedLDDTHead, representations["structure_module"]),
            "predicted_aligned_error": (heads.PredictedAlignedErrorHead, pair),
        }
        for name, (head, representation) in inputs.items():
            if config[name].weight:
                out[name] = head(config[name], self.ctx)(representation)
        if self.multimer and "predicted_aligned_error" in out:
            out["predicted_aligned_error"]["asym_id"] = first["asym_id"]
        out["representations"] = representations
        return out, msa_labels

    @hk.transparent
    def _representations(
        self, ensemble: Batch, first: Batch, previous: Batch, key: PRNGKeyArray | None
    ) -> tuple[Batch, Batch]:
        """Mean over the ensemble, but the MSA of its first element (monomer) or its last (multimer)."""
        evoformer = Evoformer(self.config.embeddings_and_evoformer, self.ctx, multimer=self.multimer)
        size = self.config.num_ensemble_eval if self.multimer else next(iter(ensemble.values())).shape[0]

        def element(index, key):
            if self.multimer:
                key, subkey = jax.random.split(key)
                return evoformer(first, previous, subkey), key
            batch = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), ensemble)
            return evoformer(batch, previous), key

        (total, labels), key = element(0, key)
        if size == 1 or hk.running_init():
            return total, labels

        def add(index, carry):
            total, labels, key = carry
            (new, new_labels), key = element(index, key)
            kept = new["msa"] if self.multimer else total["msa"]
            total = jax.tree.map(jnp.add, total, new) | {"msa": kept}
            return total, new_labels if self.multimer else labels, key

        total, labels, _ = hk.fori_loop(1, size, add, (total, labels, key))
        mean = {name: x if name == "msa" else x / size for name, x in total.items()}
        return mean, labels


class Recycling(hk.Module):
    """Suppl. Alg. 30, inference with recycling, and Alg. 31, training: only the last pass has a gradient."""

    def __init__(self, config: Config, ctx: Context):
        super().__init__(name="alphafold")
        self.config = config
        self.ctx = ctx

    def __call__(
        self, batch: Batch, *, num_recycles: Int[Array, ""] | int | None = None
    ) -> tuple[Outputs, Batch]:
        """All outputs of the last pass, `num_recycles` done, and the masked-MSA labels."""
        config = self.config
        multimer = config.global_config.multimer_mode
        iteration = AlphaFoldIteration(config, self.ctx)
        limit = config.num_recycle if num_recycles is None else num_recycles
        key = hk.next_rng_key() if multimer else None

        def one_pass(index, previous, key):
            ensemble = batch if multimer else _ensemble(batch, index, config)
            return iteration(ensemble, previous, key)

        def body(carry):
            index, previous, _, key = carry
            use = key
            if multimer and config.resample_msa_in_recycling:
                key, use = jax.random.split(key)
            out, _ = one_pass(index, previous, use)
            return index + 1, _previous(out, self.ctx), _alpha_carbons(previous.positions), key

        def unfinished(carry):
            index, previous, alpha_carbons, _ = carry
            moved = _distance_change(
                alpha_carbons, _alpha_carbons(previous.positions), _seq_mask(batch, multimer)
            )
            tolerance = config.recycle_early_stop_tolerance
            return (index < limit) & ((index == 0) | (moved > tolerance))

        previous = _zeros(batch, config.embeddings_and_evoformer, self.ctx, multimer)
        carry = (jnp.zeros((), jnp.int32), previous, _alpha_carbons(previous.positions), key)
        if config.num_recycle and not hk.running_init():
            carry = hk.while_loop(unfinished, body, carry)
        done, previous, _, key = carry
        out, labels = one_pass(done, previous, key)
        out["num_recycles"] = done
        return out, labels


def _ensemble(batch: Batch, index: Int[Array, ""], config: Config) -> Batch:
    """The ensemble of pass `index`: its slice of the leading axis, or all of it in every pass."""
    total, passes = batch["aatype"].shape[0], config.num_recycle + 1
    if passes == 1 or not config.resample_msa_in_recycling or hk.running_init():
        return batch
    if total % passes:
        raise FeaturesError(
            f"features: leading axis {total} is not num_ensemble * {passes} (num_recycle + 1); "
            "make them with this model's configuration"
        )
    size = total // passes
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, index * size, size), batch)


def _seq_mask(batch: Batch, multimer: bool) -> Float[Array, " r"]:
    return batch["seq_mask"] if multimer else batch["seq_mask"][0]


def _alpha_carbons(positions: Float[Array, "r 37 3"]) -> Float[Array, "r 3"]:
    return positions[:, ATOM_ORDER["CA"]]


def _zeros(batch: Batch, config: Config, ctx: Context, multimer: bool) -> Previous:
    """What the first pass receives."""
    length = _seq_mask(batch, multimer).shape[0]
    dtype = ctx.residual_dtype
    return Previous(
        positions=jnp.zeros((length, len(ATOM_TYPES), 3), jnp.float32),
        msa_first_row=jnp.zeros((length, config.msa_channel), dtype),
        pair=ctx.seams.shard(jnp.zeros((length, length, config.pair_channel), dtype), axis=0),
    )


def _previous(out: Outputs, ctx: Context) -> Previous:
    representations = out["representations"]
    previous = Previous(
        positions=out["structure_module"]["final_atom_positions"],
        msa_first_row=representations["msa_first_row"].astype(ctx.residual_dtype),
        pair=representations["pair"].astype(ctx.residual_dtype),
    )
    return jax.tree.map(jax.lax.stop_gradient, previous)


def _distance_change(
    old: Float[Array, "r 3"], new: Float[Array, "r 3"], mask: Float[Array, " r"]
) -> Float[Array, ""]:
    """Root mean square change of all pairwise distances, Å."""

    def distances(points):
        return jnp.sqrt(jnp.sum(jnp.square(points[:, None] - points), axis=-1))

    square = jnp.square(distances(old) - distances(new))
    return jnp.sqrt(masked_mean(mask[:, None] * mask, square) + 1e-8)


class AlphaFold:
    """A published AlphaFold 2 model.

    Example:
      model = AlphaFold("model_1_ptm", overrides={"model.num_recycle": 1})
      out = model.apply("params_model_1_ptm.npz", features, rng=0)

    Attributes:
      name: the model's published name.
      config: its configuration, see `model_config`; to change it, make another model.
    """

    def __init__(
        self,
        model: str | Config,
        overrides: Mapping[str, Any] | None = None,
        *,
        seams: Seams | None = None,
    ):
        """
        Args:
          model: a published name, or a configuration made by `model_config`.
          overrides: published dotted name -> value, for a published name.
          seams: how a strategy shards the activations; the default keeps them whole.

        Raises:
          InputError: unknown model, override or precision.
        """
        if isinstance(model, str):
            self.name = model
            self.config: Config = model_config(model, overrides)
        else:
            self.name = "custom"
            self.config = apply_overrides(model, overrides or {})
        self.seams = seams
        self.multimer = self.config.model.global_config.multimer_mode
        self._compiled: dict[tuple[bool, bool], Callable[..., Any]] = {}

    def _forward(self, features: Batch, *, is_training: bool, compute_loss: bool):
        model = self.config.model
        ctx = Context.of(model.global_config, seams=self.seams, is_training=is_training)
        num_recycles = None
        if "num_iter_recycling" in features:  # training draws how often to recycle
            num_recycles = jnp.minimum(features["num_iter_recycling"].reshape(-1)[0], model.num_recycle)
        out, labels = Recycling(model, ctx)(features, num_recycles=num_recycles)
        out["representations"]["pair"] = ctx.seams.gather(out["representations"]["pair"], axis=0)
        out = _as_float32(out)
        if not compute_loss:
            return out
        example = features if self.multimer else jax.tree.map(lambda x: x[0], features)
        total, parts = losses.model_loss(out, {**example, **labels}, model.heads)
        for name, part in parts.items():
            out[name] = {**out[name], **part}
        return total, out

    def init(self, rng: int | PRNGKeyArray, features: Mapping[str, Any]) -> Params:
        """Random parameters {module path: {name: float32 array}} for features of any size."""
        batch = model_arrays(features)
        forward = hk.transform(lambda x: self._forward(x, is_training=False, compute_loss=False))
        return dict(forward.init(_key(rng), batch))

    def apply(
        self,
        params: Params | str | Path,
        features: Mapping[str, Any],
        rng: int | PRNGKeyArray = 0,
        *,
        is_training: bool = False,
        compute_loss: bool = False,
    ) -> Any:
        """Predict a structure from processed features.

        Compiled on the first call for features of these shapes; may also stand inside `jax.jit`, `jax.grad`
        and the like.

        Args:
          params: {module path: {name: array}}, or the path of a published `params_model_*.npz`.
          features: processed features (`parafold.features.model_inputs`). A monomer's arrays have a leading
            axis num_ensemble * (num_recycle + 1), a multimer's have none.
          rng: seed or key; it decides the multimer's MSA sample and dropout.
          is_training: apply dropout, and keep the last pass differentiable.
          compute_loss: also return the loss; needs the label features.

        Returns:
          The published output tree, `{"structure_module": {"final_atom_positions": ...}, ...}`, positions in
          Å; with `compute_loss` the pair (total loss, outputs with each head's `loss`).

        Raises:
          WeightsError: a parameter is missing, extra, or of the wrong shape.
          FeaturesError: a feature is missing.
        """
        if isinstance(params, (str, Path)):
            params = load_npz(params, self)
        batch = model_arrays(features)
        missing = {"aatype", "seq_mask", "residue_index"} - set(batch)
        if missing:
            raise FeaturesError(
                f"features: {', '.join(sorted(missing))} missing; make them with model_inputs"
            )
        mode = is_training, compute_loss
        if mode not in self._compiled:
            forward = hk.transform(
                lambda x: self._forward(x, is_training=is_training, compute_loss=compute_loss)
            )
            self._compiled[mode] = jax.jit(forward.apply)
        arrays = {module: jax.tree.map(jnp.asarray, dict(named)) for module, named in params.items()}
        return self._compiled[mode](arrays, _key(rng), batch)


def _key(rng: int | PRNGKeyArray) -> PRNGKeyArray:
    """Seed or key as a legacy uint32 key: the published key schedule is written for these."""
    if isinstance(rng, (int, np.integer)):
        return jax.random.PRNGKey(rng)
    return jax.random.key_data(rng) if jnp.issubdtype(rng.dtype, jax.dtypes.prng_key) else rng


def model_arrays(features: Mapping[str, Any]) -> Batch:
    """The numeric features as 32-bit JAX arrays; text features have no place in the model."""
    out = {}
    for name, value in features.items():
        if not isinstance(value, jax.Array):
            value = np.asarray(value)
            if value.dtype == np.float64:
                value = value.astype(np.float32)
            elif value.dtype == np.int64:
                value = value.astype(np.int32)
            elif value.dtype.kind not in "fiub":
                continue
        out[name] = jnp.asarray(value)
    return out


def _as_float32(tree: Outputs) -> Outputs:
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, tree)
