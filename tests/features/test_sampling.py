"""Samples are distributed as published. Seeds are fixed; tolerances are about five standard deviations."""

from types import SimpleNamespace

import numpy as np
import pytest

from parafold.features import monomer, sample
from parafold.features.transforms import randomly_replace_msa_with_unknown

LENGTH, ROWS, CLUSTERS, EXTRA = 12, 15, 4, 6


def data(**changes):
    common = {
        "masked_msa": SimpleNamespace(profile_prob=0.1, same_prob=0.1, uniform_prob=0.1),
        "max_extra_msa": EXTRA,
        "msa_cluster_features": True,
        "num_recycle": 1,
        "reduce_msa_clusters_by_max_templates": False,
        "resample_msa_in_recycling": True,
        "use_templates": False,
    }
    evaluation = {
        "masked_msa_replace_fraction": 0.15,
        "max_msa_clusters": CLUSTERS,
        "max_templates": 4,
        "num_ensemble": 1,
    }
    for name, value in changes.items():
        (common if name in common else evaluation)[name] = value
    return SimpleNamespace(common=SimpleNamespace(**common), eval=SimpleNamespace(**evaluation))


@pytest.fixture(scope="module")
def raw():
    """Fifteen different rows; the second letter of a row tells its number."""
    rng = np.random.default_rng(0)
    msa = rng.integers(0, 20, (ROWS, LENGTH)).astype(np.int32)
    msa[:, 1] = np.arange(ROWS)
    return {
        "aatype": np.eye(21, dtype=np.int32)[rng.integers(0, 20, LENGTH)],
        "between_segment_residues": np.zeros(LENGTH, np.int32),
        "residue_index": np.arange(LENGTH, dtype=np.int32),
        "seq_length": np.full(LENGTH, LENGTH, np.int32),
        "msa": msa,
        "deletion_matrix_int": rng.integers(0, 4, (ROWS, LENGTH)).astype(np.int32),
    }


def row_numbers(msa, raw):
    """Which raw rows these (unmasked, renumbered) rows are."""
    known = {row.tobytes(): number for number, row in enumerate(monomer_msa(raw))}
    return [known[row.tobytes()] for row in msa]


def monomer_msa(raw):
    return monomer.nonensembled(raw, data(), 0)["msa"]


def test_query_first_and_every_other_row_equally_often(raw):
    repeats = 3000
    samples = monomer.process(raw, data(num_ensemble=repeats, num_recycle=0), 1, LENGTH)
    times = np.zeros((3, ROWS))  # as a centre at the second place, as any centre, as an extra row
    for centres, extra in zip(samples["true_msa"], samples["extra_msa"], strict=True):
        centre_rows, extra_rows = row_numbers(centres, raw), row_numbers(extra, raw)
        assert centre_rows[0] == 0
        assert len(set(centre_rows)) == CLUSTERS and len(set(extra_rows)) == EXTRA
        assert not set(centre_rows) & set(extra_rows)
        times[0, centre_rows[1]] += 1
        times[1, centre_rows] += 1
        times[2, extra_rows] += 1
    probability = np.array([1, CLUSTERS - 1, EXTRA]) / (ROWS - 1)
    deviation = np.sqrt(repeats * probability * (1 - probability))
    assert times[1, 0] == repeats and times[2, 0] == 0
    assert (np.abs(times[:, 1:] - repeats * probability[:, None]) < 5 * deviation[:, None]).all()


def test_extra_rows_are_all_the_others_where_they_fit(raw):
    samples = monomer.process(raw, data(max_extra_msa=40), 1, LENGTH)
    for centres, extra, mask in zip(
        samples["true_msa"], samples["extra_msa"], samples["extra_msa_row_mask"], strict=True
    ):
        assert mask.tolist() == [1] * (ROWS - CLUSTERS) + [0] * (40 - ROWS + CLUSTERS)
        rows = row_numbers(centres, raw) + row_numbers(extra[: ROWS - CLUSTERS], raw)
        assert sorted(rows) == list(range(ROWS))


def test_extra_rows_are_cropped_at_random():
    rng = np.random.default_rng(2)
    features = {"extra_msa": np.arange(10)[:, None], "extra_msa_row_mask": np.arange(10)}
    times = np.zeros((4, 10))  # by place and row
    for _ in range(4000):
        cropped = sample.crop_extra_msa(features, 4, rng)
        np.testing.assert_array_equal(cropped["extra_msa"][:, 0], cropped["extra_msa_row_mask"])
        times[np.arange(4), cropped["extra_msa_row_mask"]] += 1
    assert (np.abs(times - 400) < 5 * np.sqrt(4000 * 0.1 * 0.9)).all()


def masked(replace=0.15, **probabilities):
    """A large alignment of K whose profile says half K, half W."""
    config = SimpleNamespace(**({"profile_prob": 0.1, "same_prob": 0.1, "uniform_prob": 0.1} | probabilities))
    profile = np.zeros((400, 22), np.float32)
    profile[:, [11, 17]] = 0.5
    features = {"msa": np.full((500, 400), 11, np.int32), "hhblits_profile": profile}
    return sample.make_masked_msa(features, config, replace, np.random.default_rng(7))


def test_share_of_masked_letters():
    result = masked()
    count = result["bert_mask"].size
    assert set(np.unique(result["bert_mask"])) == {0.0, 1.0}
    assert abs(result["bert_mask"].sum() - 0.15 * count) < 5 * np.sqrt(count * 0.15 * 0.85)
    # Masked positions do not depend on each other along either axis.
    for axis in (0, 1):
        share = result["bert_mask"].mean(axis)
        expected = np.sqrt(0.15 * 0.85 / result["bert_mask"].shape[axis])
        assert share.std() == pytest.approx(expected, rel=0.2)


def test_what_masked_letters_become():
    result = masked()
    chosen = result["bert_mask"] == 1
    assert (result["msa"][~chosen] == 11).all() and (result["true_msa"] == 11).all()
    share = np.bincount(result["msa"][chosen], minlength=23) / chosen.sum()
    expected = np.zeros(23)
    expected[:20] += 0.1 * 0.05  # any amino acid
    expected[[11, 17]] += 0.1 * 0.5  # one of the profile
    expected[11] += 0.1  # itself
    expected[22] = 0.7  # the mask token; never X or a gap
    deviation = np.sqrt(expected * (1 - expected) / chosen.sum())
    assert share[20] == share[21] == 0
    assert (np.abs(share - expected) <= 5 * deviation).all()


def test_probabilities_are_those_of_the_configuration():
    assert (masked(profile_prob=0.0, same_prob=1.0, uniform_prob=0.0)["msa"] == 11).all()
    everywhere = masked(replace=1.0, profile_prob=1.0, same_prob=0.0, uniform_prob=0.0)["msa"]
    assert set(np.unique(everywhere)) == {11, 17}
    assert (masked(replace=1.0, profile_prob=0.0, same_prob=0.0, uniform_prob=0.0)["msa"] == 22).all()
    assert not masked(replace=0.0)["bert_mask"].any()


def test_the_profile_is_that_of_the_column(raw):
    config = data(num_ensemble=2000, num_recycle=0, masked_msa_replace_fraction=1.0)
    config.common.masked_msa = SimpleNamespace(profile_prob=1.0, same_prob=0.0, uniform_prob=0.0)
    samples = monomer.process(raw, config, 5, LENGTH)
    corrupted = samples["msa_feat"][..., :23].argmax(-1).reshape(-1, LENGTH)
    for column in range(LENGTH):
        found = np.bincount(corrupted[:, column], minlength=23)[:22] / len(corrupted)
        expected = np.bincount(monomer_msa(raw)[:, column], minlength=22) / ROWS
        assert (np.abs(found - expected) <= 5 * np.sqrt(expected * (1 - expected) / len(corrupted))).all()


def test_one_seed_one_result_and_passes_of_their_own(raw):
    one, again = (monomer.process(raw, data(num_recycle=3), 9, LENGTH) for _ in range(2))
    for name in one:
        np.testing.assert_array_equal(one[name], again[name])
    other = monomer.process(raw, data(num_recycle=3), 10, LENGTH)
    for name in ("true_msa", "bert_mask", "extra_msa"):
        assert (one[name] != other[name]).any()
        assert len({one[name][index].tobytes() for index in range(4)}) == 4
    # A pass is the same whatever passes there are beside it, and however far it is padded.
    fewer = monomer.process(raw, data(num_recycle=1), 9, LENGTH + 5)
    np.testing.assert_array_equal(fewer["true_msa"][:, :, :LENGTH], one["true_msa"][:2])
    np.testing.assert_array_equal(fewer["extra_msa"][:, :, :LENGTH], one["extra_msa"][:2])


def test_one_sample_for_all_passes_where_the_model_says_so(raw):
    samples = monomer.process(raw, data(resample_msa_in_recycling=False, num_ensemble=3), 0, LENGTH)
    assert len(samples["msa_feat"]) == 3


def test_fewer_clusters_where_templates_take_their_place(raw):
    config = data(reduce_msa_clusters_by_max_templates=True, max_msa_clusters=7)
    assert monomer.process(raw, config, 0, LENGTH)["msa_feat"].shape[1] == 3


def test_clusters_are_the_nearest_centres_by_brute_force():
    rng = np.random.default_rng(3)
    msa, extra = rng.integers(0, 23, (9, 30)), rng.integers(0, 22, (40, 30))
    deletions, extra_deletions = rng.integers(0, 9, (9, 30)), rng.integers(0, 9, (40, 30))
    ones, extra_ones = np.ones(msa.shape, np.float32), np.ones(extra.shape, np.float32)
    features = {
        "msa": msa.astype(np.int32),
        "msa_mask": ones,
        "deletion_matrix": deletions.astype(np.float32),
        "extra_msa": extra.astype(np.int32),
        "extra_msa_mask": extra_ones,
        "extra_deletion_matrix": extra_deletions.astype(np.float32),
    }
    result = sample.summarize_clusters(sample.nearest_neighbor_clusters(features))
    for number, row in enumerate(extra):
        agreement = [((row == centre) & (row < 21)).sum() for centre in msa]
        assert result["extra_cluster_assignment"][number] == np.argmax(agreement)
    for cluster in range(9):
        members = result["extra_cluster_assignment"] == cluster
        rows = np.concatenate([msa[cluster : cluster + 1], extra[members]])
        counts = np.concatenate([deletions[cluster : cluster + 1], extra_deletions[members]])
        expected = (rows[..., None] == np.arange(23)).mean(0)
        np.testing.assert_allclose(result["cluster_profile"][cluster], expected, rtol=1e-5)
        np.testing.assert_allclose(result["cluster_deletion_mean"][cluster], counts.mean(0), rtol=1e-5)


def test_blocks_of_the_cluster_search_do_not_show(monkeypatch, raw):
    whole = monomer.process(raw, data(), 2, LENGTH)["msa_feat"]
    monkeypatch.setattr(sample, "_BLOCK_ELEMENTS", 21 * LENGTH * 2)
    np.testing.assert_array_equal(monomer.process(raw, data(), 2, LENGTH)["msa_feat"], whole)


def test_a_query_alone(raw):
    alone = raw | {name: raw[name][:1] for name in ("msa", "deletion_matrix_int")}
    samples = monomer.process(alone, data(), 0, LENGTH)
    assert samples["msa_row_mask"].tolist() == [[1, 0, 0, 0]] * 2
    assert not samples["extra_msa_row_mask"].any()
    assert np.isfinite(samples["msa_feat"]).all()
    profile = samples["msa_feat"][0, 0, :, 25:48]
    np.testing.assert_allclose(profile, samples["msa_feat"][0, 0, :, :23], rtol=1e-5)


def test_unknown_letters_replace_a_share_but_no_gaps():
    msa = np.where(np.arange(1000) % 2, 21, 3) * np.ones((100, 1), np.int32)
    features = {"msa": msa, "aatype": np.zeros(1000, np.int32)}
    replaced = randomly_replace_msa_with_unknown(features, 0.3, np.random.default_rng(0))
    assert (replaced["msa"][:, 1::2] == 21).all()
    share = (replaced["msa"][:, ::2] == 20).mean()
    assert abs(share - 0.3) < 5 * np.sqrt(0.21 / 50_000)
    assert abs((replaced["aatype"] == 20).mean() - 0.3) < 5 * np.sqrt(0.21 / 1000)
    assert randomly_replace_msa_with_unknown(features, 0.0, np.random.default_rng(0)) is features


def test_arctan_is_accurate():
    deletions = np.concatenate([np.arange(2000), np.linspace(0, 9, 999), [2**31]]).astype(np.float32)
    exact = np.arctan(deletions.astype(np.float64)).astype(np.float32)
    np.testing.assert_array_max_ulp(sample._arctan(deletions), exact, maxulp=3)
