"""Comparing a predicted structure with the true one: frame aligned point error, lDDT, atom renaming."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from parafold.model.all_atom import squared_distances
from parafold.model.rigid import Rigid


def distance(squared: Float[Array, "*n"], epsilon: float, *, clip: bool = False) -> Float[Array, "*n"]:
    """Root of squared distances with finite gradients: `epsilon` added to the square, or a lower limit.

    The monomer's functions add, the multimer's clip (the distance itself to at least `epsilon`).
    """
    return jnp.sqrt(jnp.maximum(squared, epsilon**2) if clip else squared + epsilon)


def frame_aligned_point_error(
    predicted: tuple[Rigid, Float[Array, "points 3"]],
    target: tuple[Rigid, Float[Array, "points 3"]],
    mask: Float[Array, "frames points"],
    *,
    length_scale: float,
    clamp_distance: float | None = None,
    clip: bool = False,
) -> Float[Array, ""]:
    """Suppl. Alg. 28, FAPE: mean distance of points as seen from each frame.

    Args:
      predicted: frames, [frames], and points.
      target: frames, [frames], and points.
      mask: pairs of frame and point that count.
      length_scale: Å; the error is given in this unit.
      clamp_distance: Å; larger errors count as this one.
      clip: see `distance`.
    """
    local = [
        Rigid(frames.rotation[:, None], frames.translation[:, None]).apply_inverse(points[None])
        for frames, points in (predicted, target)
    ]
    error = distance(jnp.sum(jnp.square(local[0] - local[1]), axis=-1), 1e-4, clip=clip)
    if clamp_distance is not None:
        error = jnp.clip(error, 0.0, clamp_distance)
    return jnp.sum(error / length_scale * mask) / (1e-4 + jnp.sum(mask))


def lddt(
    predicted: Float[Array, "*b r 3"],
    true: Float[Array, "*b r 3"],
    mask: Float[Array, "*b r"],
    *,
    cutoff: float = 15.0,
    per_residue: bool = False,
) -> Float[Array, "*out"]:
    """Suppl. Alg. 29, lines 5 ff.: lDDT (0 to 1) of points, without its terms for bond geometry.

    Args:
      predicted: predicted points, Å.
      true: true points, Å.
      mask: true points that are known.
      cutoff: Å; pairs closer than this in the true structure count.
      per_residue: one score for each residue instead of one for all.
    """
    true_distance = distance(squared_distances(true, true), 1e-10)
    error = jnp.abs(true_distance - distance(squared_distances(predicted, predicted), 1e-10))
    counted = (true_distance < cutoff) * mask[..., :, None] * mask[..., None, :]
    counted = counted * (1.0 - jnp.eye(true.shape[-2], dtype=jnp.float32))
    preserved = sum((error < limit).astype(jnp.float32) for limit in (0.5, 1.0, 2.0, 4.0)) * 0.25
    axes = (-1,) if per_residue else (-2, -1)
    return (1e-10 + jnp.sum(counted * preserved, axis=axes)) / (1e-10 + jnp.sum(counted, axis=axes))


def alternative_naming_is_better(
    predicted: Float[Array, "r 14 3"],
    true: Float[Array, "r 14 3"],
    alternative: Float[Array, "r 14 3"],
    mask: Float[Array, "r 14"],
    is_ambiguous: Float[Array, "r 14"],
) -> Float[Array, " r"]:
    """Suppl. Alg. 26, lines 1-5: 1 where swapping ambiguous names brings the truth closer to the prediction.

    Args:
      predicted: predicted positions, Å.
      true: true positions.
      alternative: true positions with ambiguous names swapped.
      mask: known true atoms.
      is_ambiguous: atoms whose names may be swapped.
    """
    predicted = jax.lax.stop_gradient(predicted).reshape(-1, 3)
    rows = (mask * is_ambiguous).reshape(-1)
    columns = (mask * (1.0 - is_ambiguous)).reshape(-1)
    predicted_distance = distance(squared_distances(predicted, predicted), 1e-10)

    def deviation(positions):
        flat = positions.reshape(-1, 3)
        difference = predicted_distance - distance(squared_distances(flat, flat), 1e-10)
        per_atom = jnp.sum(distance(jnp.square(difference), 1e-10) * columns, axis=-1) * rows
        return jnp.sum(per_atom.reshape(mask.shape), axis=-1)

    return (deviation(alternative) < deviation(true)).astype(jnp.float32)
