import numpy as np
import pytest

from parafold import confidence

BREAKS = np.linspace(0.0, 31.0, 63).astype(np.float32)


def certain(bins: np.ndarray, count: int) -> np.ndarray:
    """Logits that put all probability on the given bins."""
    return np.where(np.arange(count) == bins[..., None], 100.0, 0.0).astype(np.float32)


def test_plddt_is_the_centre_of_the_certain_bin():
    np.testing.assert_allclose(confidence.plddt(certain(np.array([0, 49]), 50)), [1.0, 99.0], atol=1e-4)


def test_aligned_error_of_the_last_bin_is_the_largest():
    pae, largest = confidence.aligned_error(certain(np.full((3, 3), 63), 64), BREAKS)
    np.testing.assert_allclose(pae, largest, atol=1e-4)
    assert largest == pytest.approx(31.75)


def test_rows_are_independent_of_their_block():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(150, 150, 64)).astype(np.float32)
    pae, _ = confidence.aligned_error(logits, BREAKS)
    turned, _ = confidence.aligned_error(logits[::-1], BREAKS)
    np.testing.assert_allclose(turned[::-1], pae, rtol=1e-6)


def test_tm_score_is_high_without_and_low_with_error():
    length = 60
    assert confidence.tm_score(certain(np.zeros((length, length), int), 64), BREAKS) > 0.98
    assert confidence.tm_score(certain(np.full((length, length), 63), 64), BREAKS) < 0.05


def test_interface_score_sees_only_pairs_between_chains():
    asym_id = np.repeat([1, 2], 30)
    between = asym_id[:, None] != asym_id[None, :]
    logits = certain(np.where(between, 63, 0), 64)
    assert confidence.tm_score(logits, BREAKS, asym_id) < 0.05
    assert confidence.tm_score(logits, BREAKS) > 0.45
    assert confidence.tm_score(logits, BREAKS, np.ones(60)) == 0.0


def test_ranking_of_complexes_weighs_interfaces():
    rng = np.random.default_rng(1)
    found = confidence.metrics(
        rng.normal(size=(40, 50)), rng.normal(size=(40, 40, 64)), BREAKS, np.repeat([1, 2], 20), multimer=True
    )
    assert found["ranking_confidence"] == pytest.approx(0.8 * found["iptm"] + 0.2 * found["ptm"])


def test_multimer_without_chains_is_refused():
    with pytest.raises(ValueError, match="asym_id"):
        confidence.metrics(np.zeros((4, 50)), np.zeros((4, 4, 64)), BREAKS, multimer=True)


def test_probabilities_sum_to_one():
    logits = np.random.default_rng(2).normal(scale=50, size=(3, 5, 64))
    np.testing.assert_allclose(confidence.probabilities(logits).sum(axis=-1), 1.0)


def test_chain_breaks():
    assert confidence.chain_breaks(np.array([0, 0, 0, 1, 1, 2])) == [3, 5]
    assert confidence.chain_breaks(np.array([0])) == []
