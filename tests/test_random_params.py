"""Random parameters: drawn many at once, and yet as each initializer says."""

import jax
import numpy as np
import pytest
import small

from parafold.model.alphafold import AlphaFold
from parafold.model.params import parameter_shapes, random_params

EVOFORMER = "alphafold/alphafold_iteration/evoformer"
BLOCK = f"{EVOFORMER}/evoformer_iteration"


@pytest.fixture(scope="module", params=["demo", "demo_multimer"])
def model(request: pytest.FixtureRequest) -> AlphaFold:
    return AlphaFold(
        request.param, small.OVERRIDES | {"model.embeddings_and_evoformer.evoformer_num_block": 3}
    )


@pytest.fixture(scope="module")
def params(model: AlphaFold) -> dict:
    return jax.device_get(random_params(model, seed=1))


def test_names_and_shapes_are_the_models(model: AlphaFold, params: dict):
    shapes = {
        f"{path}//{name}": value.shape for path, names in params.items() for name, value in names.items()
    }
    assert shapes == parameter_shapes(model)
    assert {value.dtype for names in params.values() for value in names.values()} == {np.dtype(np.float32)}


def test_the_seed_decides(model: AlphaFold, params: dict):
    again, other = random_params(model, seed=1), random_params(model, seed=2)
    jax.tree.map(np.testing.assert_array_equal, params, again)
    name = f"{EVOFORMER}/preprocess_1d"
    assert not np.array_equal(params[name]["weights"], other[name]["weights"])


@pytest.mark.parametrize(
    ("module", "name", "spread"),
    [
        ("preprocess_1d", "weights", lambda shape: shape[0] ** -0.5),
        ("evoformer_iteration/msa_transition/transition1", "weights", lambda shape: (2 / shape[-2]) ** 0.5),
        ("evoformer_iteration/msa_row_attention_with_pair_bias", "feat_2d_weights", lambda s: s[-2] ** -0.5),
        (
            "evoformer_iteration/msa_column_attention/attention",
            "query_w",
            lambda shape: (2 / (shape[-3] * (shape[-2] + shape[-1]))) ** 0.5,
        ),
    ],
)
def test_the_spread_is_each_initializers_own(params: dict, module: str, name: str, spread):
    values = params[f"{EVOFORMER}/{module}"][name]
    assert abs(values.mean()) < 5 * values.std() / values.size**0.5
    assert abs(values.std() / spread(values.shape) - 1) < 5 / (2 * values.size) ** 0.5


def test_constants_and_layers(params: dict):
    norm = params[f"{BLOCK}/msa_transition/input_layer_norm"]
    assert (norm["scale"] == 1).all() and (norm["offset"] == 0).all()
    attention = params[f"{BLOCK}/msa_column_attention/attention"]
    assert (attention["gating_b"] == 1).all() and (attention["output_b"] == 0).all()
    weights = params[f"{BLOCK}/msa_transition/transition1"]["weights"]
    assert len(weights) == 3
    assert len({layer.tobytes() for layer in weights}) == 3


def test_no_number_is_drawn_twice(params: dict):
    """Parameters of one draw get different parts of it."""
    drawn = np.concatenate(
        [value.ravel() for names in params.values() for value in names.values() if value.std() > 0]
    )
    _, counts = np.unique(drawn, return_counts=True)
    assert counts.max() < 10
