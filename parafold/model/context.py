"""What every module of the model needs to know besides its own config section."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from parafold.errors import InputError
from parafold.model.config import Config
from parafold.model.primitives import final_init
from parafold.model.seams import Seams

# precision -> (residual streams, matrix products); layer norm, softmax and structure module stay float32
POLICIES = {
    "float32": (jnp.float32, jnp.float32),
    "mixed": (jnp.float32, jnp.bfloat16),
    "bfloat16": (jnp.bfloat16, jnp.bfloat16),
}


@dataclass(frozen=True)
class Context:
    """Precision policy, seams and mode of one call of the model.

    Attributes:
      seams: where the sharded axis turns; the identity on one device.
      residual_dtype: dtype of the MSA and pair representations.
      compute_dtype: dtype of matrix products and of everything between two residual additions.
      final_init: initializer of each block's last layer.
      is_training: dropout is on, updates are unblocked (reverse mode would keep every block's copy).
      dropout: whether dropout is applied (training, or asked for at evaluation).
      remat: recompute each Evoformer block in the backward pass.
      platform: what the program is compiled for; a CPU wants smaller blocks.
      block_size: rows per block of an in-place update; 0 derives it from the sizes.
    """

    seams: Seams
    residual_dtype: DTypeLike
    compute_dtype: DTypeLike
    final_init: str
    is_training: bool
    dropout: bool
    remat: bool
    platform: str
    block_size: int

    @classmethod
    def of(
        cls, gc: Config, *, seams: Seams | None = None, is_training: bool = False, platform: str | None = None
    ):
        """Context for a `model.global_config` section, by default for JAX's default platform.

        Raises:
          InputError: `precision` is not one of `POLICIES`.
        """
        if gc.precision not in POLICIES:
            raise InputError(f"precision '{gc.precision}' is unknown; use one of {', '.join(POLICIES)}")
        residual, compute = POLICIES[gc.precision]
        return cls(
            seams=seams or Seams(),
            residual_dtype=residual,
            compute_dtype=compute,
            final_init=final_init(gc.zero_init),
            is_training=is_training,
            dropout=(is_training or gc.eval_dropout) and not gc.deterministic,
            remat=gc.use_remat and is_training,
            platform=platform or jax.default_backend(),
            block_size=gc.subbatch_size,
        )
