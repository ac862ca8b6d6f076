import numpy as np
import pytest

from parafold.errors import WeightsError
from parafold.model.alphafold import AlphaFold
from parafold.model.params import load_npz, parameter_shapes, random_params

NAME = "alphafold/alphafold_iteration/distogram_head/half_logits//weights"


@pytest.fixture(scope="module")
def model():
    return AlphaFold("demo")


@pytest.fixture(scope="module")
def arrays(model):
    return {name: np.ones(shape, np.float32) for name, shape in parameter_shapes(model).items()}


def test_loads_what_fits(model, arrays, tmp_path):
    np.savez(tmp_path / "params.npz", **arrays)
    params = load_npz(tmp_path / "params.npz", model)
    module, _, leaf = NAME.partition("//")
    np.testing.assert_array_equal(params[module][leaf], arrays[NAME])
    assert sum(len(named) for named in params.values()) == len(arrays)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.pop(NAME), ["1 missing", NAME]),
        (
            lambda a: a.update({"alphafold/other//weights": np.ones(3)}),
            ["1 not the model's", "alphafold/other"],
        ),
        (lambda a: a.update({NAME: np.ones((3, 4))}), ["1 of the wrong shape", NAME, "(3, 4)", "(32, 64)"]),
    ],
)
def test_says_what_does_not_fit(model, arrays, tmp_path, change, words):
    arrays = dict(arrays)
    change(arrays)
    np.savez(tmp_path / "params.npz", **arrays)
    with pytest.raises(WeightsError) as error:
        load_npz(tmp_path / "params.npz", model)
    for word in [str(tmp_path / "params.npz"), "demo", *words]:
        assert word in str(error.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 truncated", b"\x93NUMPY not an archive", b"<html>"])
def test_damaged_file(model, tmp_path, content):
    path = tmp_path / "params.npz"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"params\.npz"):
        load_npz(path, model)


def test_missing_file(model, tmp_path):
    with pytest.raises(WeightsError, match="no such file; `parafold weights fetch`"):
        load_npz(tmp_path / "params.npz", model)


def test_nothing_is_unpickled(model, tmp_path):
    np.savez(tmp_path / "params.npz", **{NAME: np.array([{"a": 1}], dtype=object)})
    with pytest.raises(WeightsError):
        load_npz(tmp_path / "params.npz", model)


def test_random_params_follow_the_seed(model):
    first, again, other = (random_params(model, seed) for seed in (1, 1, 2))
    module, _, leaf = NAME.partition("//")
    np.testing.assert_array_equal(first[module][leaf], again[module][leaf])
    assert not np.array_equal(first[module][leaf], other[module][leaf])
