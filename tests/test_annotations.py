"""The suite checks annotations: see conftest.py."""

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from parafold.model.all_atom import squared_distances
from parafold.model.context import Context
from parafold.protein.structure import Structure


def test_a_wrong_shape_is_refused():
    with pytest.raises(jaxtyping.TypeCheckError, match="b"):
        squared_distances(jnp.zeros((3, 3)), jnp.zeros((3, 2)))
    with pytest.raises(jaxtyping.TypeCheckError, match="atom_mask"):
        Structure(
            atom_positions=np.zeros((4, 37, 3)),
            atom_mask=np.zeros((5, 37)),
            aatype=np.zeros(4, int),
            residue_index=np.arange(4),
            chain_index=np.zeros(4, int),
            b_factors=np.zeros((4, 37)),
            chain_ids=("A",),
        )


def test_a_wrong_dtype_or_type_is_refused():
    with pytest.raises(jaxtyping.TypeCheckError, match="b"):
        squared_distances(jnp.zeros((3, 3)), jnp.zeros((3, 3), int))
    with pytest.raises(jaxtyping.TypeCheckError, match="seams"):
        Context.of(None, seams="none")
