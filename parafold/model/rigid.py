"""Rigid transformations of three-dimensional space, one per residue, rigid group or atom.

Products of 3x3 matrices and vectors are written out element by element: as matrix products an accelerator
would run them in reduced precision, which coordinates do not tolerate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Added to squared lengths before the root when two vectors span a frame, so that a frame of coinciding
# atoms (always masked) is zero and has finite gradients.
_FRAME_EPSILON = 1e-8


def rotate(rotation: Float[Array, "... 3 3"], vector: Float[Array, "... 3"]) -> Float[Array, "... 3"]:
    """Rotation matrix times vector, leading dimensions broadcast."""
    return sum_terms([rotation[..., :, k] * vector[..., k, None] for k in range(3)])


def rotate_back(rotation: Float[Array, "... 3 3"], vector: Float[Array, "... 3"]) -> Float[Array, "... 3"]:
    """Transposed (inverse) rotation matrix times vector, leading dimensions broadcast."""
    return sum_terms([rotation[..., k, :] * vector[..., k, None] for k in range(3)])


def compose_rotations(
    first: Float[Array, "... 3 3"], second: Float[Array, "... 3 3"]
) -> Float[Array, "... 3 3"]:
    """Matrix product `first second`, leading dimensions broadcast."""
    return sum_terms([first[..., :, k, None] * second[..., None, k, :] for k in range(3)])


def sum_terms(terms: list[Float[Array, "*n"]]) -> Float[Array, "*n"]:
    """Sum of a few arrays from left to right."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def normalize_quaternion(quaternion: Float[Array, "... 4"]) -> Float[Array, "... 4"]:
    """Quaternion of unit length with the same direction."""
    return quaternion / jnp.sqrt(jnp.sum(jnp.square(quaternion), axis=-1, keepdims=True))


def quaternion_to_rotation(quaternion: Float[Array, "... 4"]) -> Float[Array, "... 3 3"]:
    """Rotation matrix of a unit quaternion (real part first)."""
    a, b, c, d = (quaternion[..., i] for i in range(4))
    aa, bb, cc, dd = a * a, b * b, c * c, d * d
    rows = [
        [aa + bb - cc - dd, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), aa - bb + cc - dd, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), aa - bb - cc + dd],
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def _multiply_by_vector(
    quaternion: Float[Array, "... 4"], vector: Float[Array, "... 3"]
) -> Float[Array, "... 4"]:
    """Product of a quaternion and the pure quaternion (0, vector)."""
    a, b, c, d = (quaternion[..., i] for i in range(4))
    x, y, z = (vector[..., i] for i in range(3))
    return jnp.stack(
        [
            -b * x - c * y - d * z,
            a * x + c * z - d * y,
            a * y - b * z + d * x,
            a * z + b * y - c * x,
        ],
        axis=-1,
    )


def rotation_from_two_vectors(
    x_axis: Float[Array, "... 3"], xy_plane: Float[Array, "... 3"]
) -> Float[Array, "... 3 3"]:
    """Gram-Schmidt: rotation whose x axis is along `x_axis` and whose y axis lies on the side of `xy_plane`.

    Where the vectors are zero or parallel the result is a matrix of zeros in place of the missing axes.
    """

    def unit(v):
        return v / jnp.sqrt(jnp.sum(jnp.square(v), axis=-1, keepdims=True) + _FRAME_EPSILON)

    e0 = unit(x_axis)
    e1 = unit(xy_plane - jnp.sum(xy_plane * e0, axis=-1, keepdims=True) * e0)
    return jnp.stack([e0, e1, jnp.cross(e0, e1)], axis=-1)


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Rigid:
    """Rotation followed by translation: `x -> rotation x + translation`.

    Attributes:
      rotation: rotation matrices.
      translation: translations, Å unless said otherwise.
      quaternion: the unit quaternions that `rotation` was made from, where there are any. Backbone frames
        of the structure module carry them through the updates; frames made from atoms have none.
    """

    rotation: Float[Array, "... 3 3"]
    translation: Float[Array, "... 3"]
    quaternion: Float[Array, "... 4"] | None = None

    @classmethod
    def identity(cls, shape: tuple[int, ...]) -> Rigid:
        """Identity transformations of the given leading shape."""
        quaternion = jnp.zeros((*shape, 4), jnp.float32).at[..., 0].set(1.0)
        return cls.from_quaternion(quaternion, jnp.zeros((*shape, 3), jnp.float32))

    @classmethod
    def from_quaternion(cls, quaternion: Float[Array, "... 4"], translation: Float[Array, "... 3"]) -> Rigid:
        """From unit quaternions (real part first) and translations."""
        return cls(quaternion_to_rotation(quaternion), translation, quaternion)

    @classmethod
    def from_tensor7(cls, x: Float[Array, "... 7"]) -> Rigid:
        """From unit quaternion and translation, the monomer's `traj` and `final_affines`."""
        return cls.from_quaternion(x[..., :4], x[..., 4:])

    @classmethod
    def from_tensor12(cls, x: Float[Array, "... 12"]) -> Rigid:
        """From row-major rotation matrix and translation, the monomer's side-chain frames."""
        return cls(x[..., :9].reshape(*x.shape[:-1], 3, 3), x[..., 9:])

    @classmethod
    def from_matrix(cls, x: Float[Array, "... rows 4"]) -> Rigid:
        """From `[rotation | translation]` with three rows (multimer) or four (homogeneous coordinates)."""
        return cls(x[..., :3, :3], x[..., :3, 3])

    @classmethod
    def from_three_points(
        cls,
        negative_x_axis: Float[Array, "... 3"],
        origin: Float[Array, "... 3"],
        xy_plane: Float[Array, "... 3"],
    ) -> Rigid:
        """Suppl. Alg. 21, rigid from 3 points: Gram-Schmidt on three atoms."""
        return cls(rotation_from_two_vectors(origin - negative_x_axis, xy_plane - origin), origin)

    def to_tensor7(self) -> Float[Array, "... 7"]:
        """Unit quaternion and translation; the frames must carry quaternions."""
        if self.quaternion is None:
            raise ValueError("these frames were made from atoms and carry no quaternion; use to_matrix()")
        return jnp.concatenate([self.quaternion, self.translation], axis=-1)

    def to_tensor12(self) -> Float[Array, "... 12"]:
        """Row-major rotation matrix and translation."""
        flat = self.rotation.reshape(*self.rotation.shape[:-2], 9)
        return jnp.concatenate([flat, self.translation], axis=-1)

    def to_matrix(self) -> Float[Array, "... 3 4"]:
        """`[rotation | translation]`."""
        return jnp.concatenate([self.rotation, self.translation[..., None]], axis=-1)

    def apply(self, point: Float[Array, "... 3"]) -> Float[Array, "... 3"]:
        """Local to global coordinates; leading dimensions of frames and points broadcast."""
        return rotate(self.rotation, point) + self.translation

    def apply_inverse(self, point: Float[Array, "... 3"]) -> Float[Array, "... 3"]:
        """Global to local coordinates; a frame's own origin gives exactly zero."""
        return rotate_back(self.rotation, point - self.translation)

    def compose(self, other: Rigid) -> Rigid:
        """The transformation that applies `other` first. Quaternions are not carried over."""
        return Rigid(compose_rotations(self.rotation, other.rotation), self.apply(other.translation))

    def compose_rotation(self, rotation: Float[Array, "... 3 3"]) -> Rigid:
        """The transformation that applies `rotation` first. Quaternions are not carried over."""
        return Rigid(compose_rotations(self.rotation, rotation), self.translation)

    def update(self, step: Float[Array, "... 6"]) -> Rigid:
        """Suppl. Alg. 23, backbone update: compose with the rotation of quaternion (1, b, c, d) and a shift.

        Args:
          step: b, c, d, then the translation in the local frame.
        """
        if self.quaternion is None:
            raise ValueError("only frames that carry quaternions can be updated")
        quaternion = self.quaternion + _multiply_by_vector(self.quaternion, step[..., :3])
        return Rigid.from_quaternion(
            normalize_quaternion(quaternion), self.translation + rotate(self.rotation, step[..., 3:])
        )

    def scale_translation(self, factor: float) -> Rigid:
        """The same frames in other units of length."""
        return Rigid(self.rotation, self.translation * factor, self.quaternion)

    def map(self, function: Callable[[Array], Array]) -> Rigid:
        """Apply a function of leading dimensions (indexing, stacking) to every part."""
        return jax.tree.map(function, self)

    def __getitem__(self, index) -> Rigid:
        return self.map(lambda x: x[index])

    def stop_rotation_gradient(self) -> Rigid:
        """The same frames; no gradient flows into the rotations."""
        stop = jax.lax.stop_gradient
        quaternion = None if self.quaternion is None else stop(self.quaternion)
        return Rigid(stop(self.rotation), self.translation, quaternion)

    def tree_flatten(self):
        return (self.rotation, self.translation, self.quaternion), None

    @classmethod
    def tree_unflatten(cls, _, children) -> Rigid:
        # Without the constructor: leaves may be anything while JAX transforms a tree.
        rigid = object.__new__(cls)
        for name, child in zip(("rotation", "translation", "quaternion"), children, strict=True):
            object.__setattr__(rigid, name, child)
        return rigid


def backbone_frames(n: Float[Array, "... 3"], ca: Float[Array, "... 3"], c: Float[Array, "... 3"]) -> Rigid:
    """Backbone frames: origin at CA, C on the positive x axis, N in the xy plane with positive y."""
    return Rigid(rotation_from_two_vectors(c - ca, n - ca), ca)
