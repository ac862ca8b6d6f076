"""Features equal the published pipeline's bit for bit, wherever chance has no part in them."""

from itertools import groupby

import numpy as np
import pytest
from reference import ORACLE, read_json, read_npz

from parafold.features import labels, monomer, msa_features, multimer, sample, sequence_features, transforms
from parafold.features.raw import chain_features
from parafold.model.config import model_config
from parafold.protein.alignment import parse_a3m, parse_stockholm

DATA = read_json("data", "data.json")
MONOMERS = sorted(path.parent.name for path in ORACLE.glob("*/raw_features.npz"))
MULTIMERS = sorted(path.name for path in ORACLE.glob("multimer*"))
TRAINING = sorted(path.name for path in ORACLE.glob("train*"))
PAIRED = sorted(key for key in DATA if key.startswith("pair_"))
# What TensorFlow's shuffles and masks reach. Everything else is compared.
SAMPLED = {
    "bert_mask",
    "extra_deletion_value",
    "extra_has_deletion",
    "extra_msa",
    "msa_feat",
    "random_crop_to_size_seed",
    "true_msa",
}


def same(got: dict, want: dict, ignore=frozenset()):
    """Equal keys, types, shapes and, but for `ignore`, values."""
    assert set(got) == set(want)
    for name, expected in want.items():
        found = np.asarray(got[name])
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), name
        if name not in ignore:
            np.testing.assert_array_equal(found, expected, err_msg=name)


def read_alignment(path):
    parse = parse_a3m if path.suffix == ".a3m" else parse_stockholm
    return parse(path.read_text(), path.name)


def test_sequence_features():
    want = read_npz("data", "sequence_features.npz")
    same(sequence_features(want["sequence"][0].decode(), want["domain_name"][0].decode()), want)


def test_msa_features():
    msas = [read_alignment(ORACLE / "data" / name) for name in ("uniref90.sto", "bfd.a3m", "mgnify.sto")]
    same(msa_features(msas), read_npz("data", "msa_features.npz"))


@pytest.mark.parametrize("case", MONOMERS)
def test_raw_monomer_features(case):
    want = read_npz(case, "raw_features.npz")
    templates = {name: array for name, array in want.items() if name.startswith("template_")}
    msas = [read_alignment(ORACLE / case / name) for name in ("a.sto", "b.a3m")]
    sequence, description = want["sequence"][0].decode(), want["domain_name"][0].decode()
    got = chain_features(sequence, description, msas, templates)
    same({name: got[name] for name in want}, want)


@pytest.mark.parametrize(
    "case, chain",
    [(case, path.name[5]) for case in MULTIMERS for path in (ORACLE / case).glob("chain*_raw_features.npz")],
)
def test_raw_chain_features(case, chain):
    want = read_npz(case, f"chain{chain}_raw_features.npz")
    msas = [read_alignment(ORACLE / case / f"chain{chain}_{name}") for name in ("a.sto", "b.a3m")]
    got = chain_features(want["sequence"][0].decode(), want["domain_name"][0].decode(), msas, want)
    uniprot = ORACLE / case / f"chain{chain}_uniprot.sto"
    if "msa_all_seq" in want:
        to_pair = msa_features([read_alignment(uniprot)])
        got |= {name + "_all_seq": array for name, array in to_pair.items()}
    same({name: got[name] for name in want}, want)


@pytest.mark.parametrize(
    "name, file",
    [
        ("model_1", "tf_model_1_seed1.npz"),
        ("model_3_query_only_nomask", "tf_model_3_query_only_nomask_seed1.npz"),
        ("model_3_default_sizes", None),
    ],
)
def test_processed_features(name, file):
    case, summary = DATA[f"tf_overrides/{name}"], DATA["tf_summary"][name]
    config = model_config(case["model"], case["overrides"])
    raw = read_npz("data", "tf_raw_features.npz")
    got = monomer.process(raw, config.data, seed=3, num_res=len(raw["aatype"]))
    assert {key: [list(array.shape), str(array.dtype)] for key, array in got.items()} == {
        key: [entry["shape"], entry["dtype"]] for key, entry in summary.items()
    }
    assert {key for key, entry in summary.items() if not entry["deterministic"]} <= SAMPLED
    if file is not None:
        same(got, read_npz("data", file), {key for key in summary if not summary[key]["deterministic"]})
    for key, entry in summary.items():
        if entry["deterministic"]:
            again = monomer.process(raw, config.data, seed=4, num_res=len(raw["aatype"]))[key]
            np.testing.assert_array_equal(got[key], again, err_msg=key)


@pytest.mark.parametrize("case", MONOMERS)
def test_processed_monomer_case(case):
    description = read_json(case, "case.json")
    config = model_config(description["model_name"], description["overrides"])
    raw, want = read_npz(case, "raw_features.npz"), read_npz(case, "features.npz")
    length = description.get("crop_size") or len(raw["aatype"])
    got = monomer.process(raw, config.data, seed=0, num_res=length)
    same(got, want, SAMPLED)
    # The query's own row is masked at random, but its truth and its deletions are not.
    np.testing.assert_array_equal(got["true_msa"][:, 0], want["true_msa"][:, 0])
    np.testing.assert_array_equal(got["msa_feat"][:, 0, :, 23:25], want["msa_feat"][:, 0, :, 23:25])
    # Padding is padding in both.
    np.testing.assert_array_equal(got["msa_feat"].any(-1), want["msa_feat"].any(-1))


def test_clusters_of_a_fixed_split():
    arrays = read_npz("data", "tf_cluster_fixed_split.npz")
    features = {name[3:]: array for name, array in arrays.items() if name.startswith("in/")}
    features = sample.summarize_clusters(sample.nearest_neighbor_clusters(features))
    features = transforms.make_atom14_masks(sample.make_msa_feat(features))
    want = {name[4:]: array for name, array in arrays.items() if name.startswith("out/")}
    same({name: features[name] for name in want}, want, {"msa_feat"})
    np.testing.assert_array_equal(features["msa_feat"][..., :48], want["msa_feat"][..., :48])
    # This reference divides the deletion mean by 3 where the whole pipeline, compiled as a graph, multiplies
    # by 1/3 (as tf_model_3_query_only_nomask_seed1 shows): the last bits of two values out of 252.
    np.testing.assert_array_max_ulp(features["msa_feat"][..., 48], want["msa_feat"][..., 48], maxulp=2)
    assert (features["msa_feat"][..., 48] != want["msa_feat"][..., 48]).sum() <= 2


def test_profile():
    arrays = read_npz("data", "tf_hhblits_profile.npz")
    got = transforms.make_hhblits_profile({"msa": arrays["in/msa"]})
    same({"hhblits_profile": got["hhblits_profile"]}, {"hhblits_profile": arrays["out/hhblits_profile"]})


@pytest.mark.parametrize("case", PAIRED)
def test_pairing_and_merging(case):
    arrays = read_npz("data", f"{case}_raw.npz")
    chains = [
        {name.split("/")[1]: array for name, array in arrays.items() if name.startswith(chain + "/")}
        for chain in DATA[case]["chains"]
    ]
    named = multimer.add_assembly_features([multimer.convert_monomer_features(chain) for chain in chains])
    assert list(named) == DATA[case]["assembly_keys"]
    want = read_npz("data", f"{case}_assembly.npz")
    same({f"{key}/{name}": named[key][name] for key, name in (full.split("/") for full in want)}, want)
    merged = multimer.pair_and_merge(named)
    same(merged, read_npz("data", f"{case}_merged.npz"))
    same(multimer.pad_msa(merged, 64), read_npz("data", f"{case}_padded64.npz"))


@pytest.mark.parametrize("case", MULTIMERS)
def test_multimer_case(case):
    want = read_npz(case, "features.npz")
    # One file for each entity, in order; as many copies of it as the reference has chains of that entity.
    copies = [
        len(set(want["asym_id"][list(group)]))
        for _, group in groupby(range(len(want["entity_id"])), key=lambda row: want["entity_id"][row])
    ]
    files = sorted(path.name for path in (ORACLE / case).glob("chain*_raw_features.npz"))
    chains = [read_npz(case, file) for file, count in zip(files, copies, strict=True) for _ in range(count)]
    same(multimer.assemble(chains, read_json(case, "case.json")["pad_msa"]), want)


def check_labels(got, want):
    assert set(got) == set(want)
    for name, expected in want.items():
        assert (got[name].dtype, got[name].shape) == (expected.dtype, expected.shape), name
    known = want["backbone_affine_mask"] > 0
    got_tensor, want_tensor = got["backbone_affine_tensor"][known], want["backbone_affine_tensor"][known]
    sign = np.sign((got_tensor[:, :4] * want_tensor[:, :4]).sum(-1, keepdims=True))
    np.testing.assert_allclose(got_tensor[:, :4] * sign, want_tensor[:, :4], atol=1e-6)
    np.testing.assert_array_equal(got_tensor[:, 4:], want_tensor[:, 4:])
    difference = np.angle(np.exp(1j * (got["chi_angles"] - want["chi_angles"])))
    np.testing.assert_allclose(difference, 0, atol=1e-5)
    for name in set(want) - {"backbone_affine_tensor", "chi_angles"}:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_labels_of_geometry():
    arrays = read_npz("geometry", "geometry.npz")
    want = {name[7:]: array for name, array in arrays.items() if name.startswith("labels/")}
    del want["resolution"]  # of the experiment, not of the positions
    inputs = (arrays[f"in/{name}"] for name in ("aatype", "all_atom_positions", "all_atom_mask"))
    check_labels(labels(*inputs), want)


@pytest.mark.parametrize("case", TRAINING)
def test_labels_of_training_case(case):
    batch = {name: array[0] for name, array in read_npz(case, "features.npz").items() if array.ndim}
    got = labels(batch["aatype"], batch["all_atom_positions"], batch["all_atom_mask"])
    check_labels(got, {name: batch[name] for name in got})
    unlabelled = set(batch) - set(got) - set(monomer.pad.MONOMER_AXES)
    assert unlabelled <= {"resolution", "use_clamped_fape", "num_iter_recycling"}
