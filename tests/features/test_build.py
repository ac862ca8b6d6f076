import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from parafold.errors import FeaturesError
from parafold.features import bucket, build, model_inputs, pad
from parafold.model.config import model_config
from parafold.protein.alignment import Msa
from parafold.protein.sequence import Chain, FoldInput

A, B = "ACDEFGHIKL", "MNPQRST"


def msa(query, *rows):
    sequences = [query, *rows]
    descriptions = ["query"] + [f"tr|A0A{n:07d}|A0A{n:07d}_HUMAN" for n in range(len(rows))]
    return Msa(sequences, np.zeros((len(sequences), len(query)), np.int32), descriptions)


def target(*sequences):
    return FoldInput("t", tuple(Chain("ABCDEF"[n], sequence) for n, sequence in enumerate(sequences)))


def small(name="model_3"):
    return model_config(name, {"data.eval.max_msa_clusters": 8, "data.common.max_extra_msa": 5})


def test_one_chain():
    features = build(
        target(A), {A: {"first": msa(A, "ACDEFGHIKK"), "second": msa(A, "ACDEFGHIKK", "ACDEFGHIK-")}}
    )
    assert (features.name, features.kind, features.sequences, len(features)) == ("t", "monomer", (A,), 10)
    assert features.arrays["num_alignments"][0] == 3
    inputs = model_inputs(features, small(), seed=0)
    assert inputs["msa_feat"].shape == (4, 8, 10, 49)
    assert "template_aatype" not in inputs
    assert model_inputs(features, small("model_1"), seed=0)["template_mask"].tolist() == [[0] * 4] * 4


def test_nothing_found_is_the_query_alone():
    assert build(target(A), {}).arrays["num_alignments"][0] == 1


def test_uniprot_pairs_and_does_nothing_else():
    found = {
        A: {"small": msa(A), "uniprot": msa(A, "ACDEFGHIKK")},
        B: {"small": msa(B), "uniprot": msa(B, "MNPQRSS")},
    }
    features = build(target(A, B), found)
    assert features.kind == "multimer" and features.sequences == (A, B)
    # The queries and the HUMAN pair; each query's own row stands among the pairs already.
    assert features.arrays["num_alignments"] == 2
    assert features.arrays["msa_mask"].sum() == 2 * len(features)
    assert build(target(A), found).arrays["num_alignments"][0] == 1


def test_the_databases_for_pairing_are_told_by_name():
    found = {
        A: {"small": msa(A), "mine": msa(A, "ACDEFGHIKK"), "uniprot": msa(A, "ACDEFGHIKI")},
        B: {"small": msa(B), "mine": msa(B, "MNPQRSS")},
    }
    features = build(target(A, B), found, pairing=["mine"])
    # The queries, the HUMAN pair of "mine", and the row of "uniprot", which has no partner then.
    assert features.arrays["num_alignments"] == 3
    assert build(target(A), found, pairing=["mine"]).arrays["num_alignments"][0] == 2


def test_the_first_50000_rows_of_uniprot_are_paired():
    # Only the last row of the long alignment has the partner's species.
    letters = itertools.product("ACDEFGHIKL", repeat=5)
    rows = ["WWWWW"] + ["".join(next(letters)) for _ in range(50_000)]
    partner = Msa([B, "MNPQRSS"], np.zeros((2, 7), np.int32), ["query", "tr|A0A0000002|A0A0000002_YEAST"])
    for count, pairs in ((50_000, 2), (50_001, 1)):
        descriptions = [""] * (count - 1) + ["tr|A0A0000001|A0A0000001_YEAST"]
        long = Msa(rows[:count], np.zeros((count, 5), np.int32), descriptions)
        features = build(target("WWWWW", B), {"WWWWW": {"uniprot": long}, B: {"uniprot": partner}})
        assert features.arrays["num_alignments"] == pairs


def test_without_uniprot_the_other_alignments_are_paired():
    features = build(target(A, B), {A: {"small": msa(A, "ACDEFGHIKK")}, B: {"small": msa(B, "MNPQRSS")}})
    assert features.arrays["num_alignments"] == 2  # both paired, nothing left


def test_order_of_sequences_is_that_of_the_arrays():
    features = build(target(B, A, B), {})
    assert features.sequences == (B, B, A)
    assert features.arrays["asym_id"].tolist() == [1] * 7 + [2] * 7 + [3] * 10


def test_one_chain_for_a_multimer_model():
    features = build(target(A), {}, kind="multimer")
    inputs = model_inputs(features, model_config("model_1_multimer_v3"), 0)
    assert features.kind == "multimer" and inputs["asym_id"].tolist() == [1] * 10


def test_several_chains_for_a_monomer_model():
    with pytest.raises(FeaturesError, match="t: a monomer model takes one chain, not 2"):
        build(target(A, B), {}, kind="monomer")


@pytest.mark.parametrize("sequences, model", [((A,), "model_1_multimer_v3"), ((A, B), "model_1")])
def test_features_for_the_other_kind_of_model(sequences, model):
    with pytest.raises(FeaturesError, match="t: these are features for a"):
        model_inputs(build(target(*sequences), {}), model_config(model), 0)


@pytest.mark.parametrize("sequences, model", [((A, B), "model_1_multimer_v3"), ((A,), "model_3")])
def test_a_length_that_is_too_small(sequences, model):
    with pytest.raises(FeaturesError, match="choose a larger length"):
        model_inputs(build(target(*sequences), {}), model_config(model), 0, length=9)


def test_padded_monomer():
    features = build(target(A), {A: {"first": msa(A, "ACDEFGHIKK", "ACDEFGHIK-")}})
    exact, padded = (model_inputs(features, small(), 4, length=length) for length in (None, 16))
    for name, axes in pad.MONOMER_AXES.items():
        if name in exact:
            axis = axes.index(pad._RES) + 1 if pad._RES in axes else None
            if axis is None:
                np.testing.assert_array_equal(padded[name], exact[name])
                continue
            real, added = np.split(padded[name], [10], axis=axis)
            np.testing.assert_array_equal(real, exact[name], err_msg=name)
            assert added.shape[axis] == 6 and not added.any(), name


def test_padded_multimer():
    features = build(target(A, B), {})
    config = model_config("model_1_multimer_v3")
    inputs = model_inputs(features, config, 0, length=32, num_msa=600)
    assert inputs["msa"].shape == (600, 32) and inputs["template_aatype"].shape == (4, 32)
    exact = model_inputs(features, config, 0)
    for name, array in exact.items():
        assert array.dtype in (np.int32, np.float32), name
        assert inputs[name].dtype == array.dtype
        assert inputs[name].shape == tuple({17: 32, 512: 600}.get(size, size) for size in array.shape), name
        part = inputs[name][tuple(slice(size) for size in array.shape)]
        np.testing.assert_array_equal(part, array, err_msg=name)
        assert inputs[name].sum() == pytest.approx(array.sum(), rel=1e-6), f"{name}: padding is not zero"
    assert exact["asym_id"].dtype == np.int32
    assert model_inputs(features, config, 0, num_msa=10)["msa"].shape[0] == 512


@pytest.mark.parametrize("length, size", [(1, 64), (64, 64), (65, 128), (200, 256)])
def test_buckets(length, size):
    assert bucket(length) == size
    assert bucket(length, 1) == length


def test_no_bucket_of_nothing():
    with pytest.raises(FeaturesError, match="at least 1"):
        bucket(0)


def processed(length=20, templates=6, seed=(1, 2)):
    return {
        "aatype": np.arange(length, dtype=np.int32),
        "msa_feat": np.arange(length * 3.0).reshape(1, length, 3),
        "template_aatype": 100 * np.arange(templates)[:, None] + np.arange(length),
        "template_mask": np.ones(templates, np.float32),
        "seq_length": np.asarray(length, np.int32),
        "random_crop_to_size_seed": np.array(seed, np.int32),
    }


def test_crops_are_windows_and_every_window_comes_up():
    starts = set()
    for number in range(400):
        cropped = pad.random_crop_to_size(processed(seed=(number, -5)), 15, 4)
        window = cropped["aatype"]
        assert window.tolist() == list(range(window[0], window[0] + 15))
        assert (cropped["msa_feat"][0, :, 0] == 3 * window).all()
        assert (cropped["template_aatype"] == 100 * np.arange(4)[:, None] + window).all()
        assert cropped["seq_length"] == 15
        starts.add(int(window[0]))
    assert starts == set(range(6))


def test_passes_are_cropped_alike():
    first, second = (pad.random_crop_to_size(processed(), 7, 4)["aatype"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_short_chain_is_not_cropped():
    cropped = pad.random_crop_to_size(processed(), 30, 9)
    for name, array in processed().items():
        np.testing.assert_array_equal(cropped[name], array)


def test_subsampled_templates_are_distinct_and_vary():
    chosen = set()
    for number in range(50):
        cropped = pad.random_crop_to_size(processed(seed=(number, 0)), 20, 4, subsample_templates=True)
        rows = tuple((cropped["template_aatype"][:, 0] // 100).tolist())
        assert len(set(rows)) == len(rows) == len(cropped["template_mask"]) <= 4
        chosen.add(rows)
    assert len(chosen) > 20 and () in chosen


def test_too_many_rows_to_pad():
    with pytest.raises(FeaturesError, match="msa_feat has 1 msa rows, more than the 0"):
        pad.make_fixed_size({"msa_feat": np.zeros((1, 5, 3))}, 0, 0, 5, 0)


def test_any_configuration_with_the_attributes_will_do():
    data = small().data
    plain = SimpleNamespace(data=SimpleNamespace(common=data.common, eval=data.eval))
    features = build(target(A), {})
    for name, array in model_inputs(features, plain, 0).items():
        np.testing.assert_array_equal(array, model_inputs(features, small(), 0)[name])
