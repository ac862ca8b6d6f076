"""The heads that read predictions off the representations (suppl. section 1.9)."""

from __future__ import annotations

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from parafold.model.config import Config
from parafold.model.context import Context
from parafold.model.primitives import LayerNorm, Linear


class _Head(hk.Module):
    """A head: its config section, the context, and the published module name."""

    published_name: str

    def __init__(self, config: Config, ctx: Context):
        super().__init__(name=self.published_name)
        self.config = config
        self.ctx = ctx

    @hk.transparent
    def logits(self, x: Array, num_output: int, name: str = "logits") -> Array:
        return Linear(num_output, init=self.ctx.final_init, name=name)(x.astype(jnp.float32))


class DistogramHead(_Head):
    """Suppl. section 1.9.8: distance bins between pseudo-betas, from a symmetrized linear map."""

    published_name = "distogram_head"

    def __call__(self, pair: Float[Array, "i j c_z"]) -> dict[str, Array]:
        """`pair` sharded along axis 0, the logits whole."""
        c, seams = self.config, self.ctx.seams
        half = self.logits(pair, c.num_bins, "half_logits")
        logits = half + seams.turn(half, source=0, target=1).swapaxes(0, 1)
        return {
            "logits": seams.gather(logits, axis=0),
            "bin_edges": jnp.linspace(c.first_break, c.last_break, c.num_bins - 1),
        }


class MaskedMsaHead(_Head):
    """Suppl. section 1.9.9: residue types of the masked positions."""

    published_name = "masked_msa_head"

    def __call__(self, msa: Float[Array, "s r c_m"]) -> dict[str, Array]:
        return {"logits": self.logits(msa, self.config.num_output)}


class ExperimentallyResolvedHead(_Head):
    """Suppl. section 1.9.10: whether an atom is resolved in a high-resolution structure."""

    published_name = "experimentally_resolved_head"

    def __call__(self, single: Float[Array, "r c_s"]) -> dict[str, Array]:
        return {"logits": self.logits(single, 37)}


class PredictedLDDTHead(_Head):
    """Suppl. Alg. 29: per-residue lDDT of the CA atoms."""

    published_name = "predicted_lddt_head"

    def __call__(self, structure: Float[Array, "r c_s"]) -> dict[str, Array]:
        act = LayerNorm(name="input_layer_norm")(structure.astype(jnp.float32))
        act = jax.nn.relu(Linear(self.config.num_channels, init="relu", name="act_0")(act))
        act = jax.nn.relu(Linear(self.config.num_channels, init="relu", name="act_1")(act))
        return {"logits": self.logits(act, self.config.num_bins)}


class PredictedAlignedErrorHead(_Head):
    """Suppl. section 1.9.7: error of residue j's position in the frame of residue i."""

    published_name = "predicted_aligned_error_head"

    def __call__(self, pair: Float[Array, "i j c_z"]) -> dict[str, Array]:
        """`pair` sharded along axis 0, the logits whole."""
        logits = self.logits(pair, self.config.num_bins)
        return {
            "logits": self.ctx.seams.gather(logits, axis=0),
            "breaks": jnp.linspace(0.0, self.config.max_error_bin, self.config.num_bins - 1),
        }
