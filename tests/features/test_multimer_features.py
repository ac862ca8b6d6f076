import numpy as np
import pytest

from parafold.features import chain_order, multimer, pairing
from parafold.features.raw import chain_features, msa_features
from parafold.protein.alignment import Msa

LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def alignment(query, rows, species=None, seed=0):
    rng = np.random.default_rng(seed)
    others = ["".join(rng.choice(list(LETTERS), len(query))) for _ in range(rows - 1)]
    names = species or [""] * (rows - 1)
    descriptions = ["query"] + [
        f"tr|A0A{n:07d}|A0A{n:07d}_{name}" if name else f"r{n}" for n, name in enumerate(names)
    ]
    return Msa([query, *others], np.zeros((rows, len(query)), np.int32), descriptions)


def chain(query, rows, to_pair=None, seed=0):
    features = chain_features(query, "", [alignment(query, rows, seed=seed)], None)
    if to_pair is not None:
        paired = msa_features([to_pair])
        names = ("msa", "deletion_matrix_int", "msa_species_identifiers")
        features |= {name + "_all_seq": paired[name] for name in names}
    return features


def test_copies_of_a_sequence_stand_together():
    assert chain_order(["B", "A", "B", "C", "A"]) == [0, 2, 1, 4, 3]
    features = multimer.assemble([chain(query, 3, alignment(query, 2)) for query in ("ACDE", "KLM", "ACDE")])
    assert features["asym_id"].tolist() == [1] * 4 + [2] * 4 + [3] * 3
    assert features["entity_id"].tolist() == [1] * 8 + [2] * 3
    assert features["sym_id"].tolist() == [1] * 4 + [2] * 4 + [1] * 3
    assert features["residue_index"].tolist() == [0, 1, 2, 3] * 2 + [0, 1, 2]


@pytest.mark.parametrize("number, name", [(1, "A"), (26, "Z"), (27, "AA"), (28, "BA"), (53, "AB")])
def test_names_of_entities(number, name):
    assert multimer._letters(number) == name


def test_rows_of_one_species_are_paired_by_similarity():
    # Rows 1 and 2 of the first chain are of one species, row 2 the more similar one.
    first = Msa(
        ["AAAA", "CCCA", "CAAA"],
        np.zeros((3, 4), np.int32),
        ["q", "tr|A0A000000|X_HUMAN", "tr|A0A000001|X_HUMAN"],
    )
    second = Msa(
        ["KKK", "LKK", "LLL"],
        np.zeros((3, 3), np.int32),
        ["q", "tr|A0A000002|X_HUMAN", "tr|A0A000003|X_YEAST"],
    )
    chains = [chain("AAAA", 1, first), chain("KKK", 1, second)]
    pairs = pairing.pair_sequences(chains)
    assert {count: rows.tolist() for count, rows in pairs.items()} == {2: [[0, 0], [2, 1]]}
    paired = pairing.create_paired_features(chains)
    assert [len(one["msa_all_seq"]) for one in paired] == [2, 2]


def test_a_chain_without_partner_gets_gaps():
    species = [["HUMAN", "YEAST"], ["HUMAN"], ["YEAST"]]
    queries = ["AAAA", "KKK", "WW"]
    chains = [
        chain(query, 1, alignment(query, len(names) + 1, names, seed=number))
        for number, (query, names) in enumerate(zip(queries, species, strict=True))
    ]
    pairs = pairing.pair_sequences(chains)
    assert pairs[3].tolist() == [[0, 0, 0]]
    assert pairs[2].tolist() == [[1, 1, -1], [2, -1, 1]]
    paired = pairing.create_paired_features(chains)
    assert (paired[2]["msa_all_seq"][1] == pairing.GAP).all()
    assert (paired[1]["msa_all_seq"][2] == pairing.GAP).all()
    merged = multimer.assemble([*chains])
    gap = 21
    assert (merged["msa"][1, 7:] == gap).all() and (merged["msa"][2, 4:7] == gap).all()


def test_a_species_of_too_many_sequences_is_not_paired():
    for count, expected in ((600, 2), (601, 1)):
        chains = [
            chain("ACDEFGHIKL", 1, alignment("ACDEFGHIKL", count + 1, ["HUMAN"] * count)),
            chain("KLM", 1, alignment("KLM", 2, ["HUMAN"])),
        ]
        assert len(pairing.pair_sequences(chains)[2]) == expected


def test_paired_rows_leave_the_unpaired_alignment():
    to_pair = alignment("ACDEFG", 3, ["HUMAN", "YEAST"], seed=5)
    first = chain_features("ACDEFG", "", [to_pair], None)
    first |= {
        name + "_all_seq": first[name] for name in ("msa", "deletion_matrix_int", "msa_species_identifiers")
    }
    merged = multimer.assemble([first, chain("KLM", 2, alignment("KLM", 2, ["HUMAN"]), seed=1)], 0)
    # The query pair, the HUMAN pair, the YEAST row of the first chain, and the random row of the second.
    assert merged["num_alignments"] == len(merged["msa"]) == 4
    assert merged["bert_mask"].tolist() == [[1] * 9] * 2 + [[1] * 6 + [0] * 3, [0] * 6 + [1] * 3]
    assert merged["cluster_bias_mask"].tolist() == [1, 0, 0, 0]


def test_limits_of_the_alignment():
    species = [f"S{n:04d}" for n in range(1500)]
    chains = [
        chain(query, 3000, alignment(query, 1501, species, seed=2), seed=9)
        for query in ("ACDEFGHI", "KLMNPQRS")
    ]
    named = multimer.add_assembly_features([multimer.convert_monomer_features(one) for one in chains])
    merged = multimer.pair_and_merge(named)
    paired = (merged["bert_mask"].all(axis=1)).sum()
    assert paired == 1024  # half of 2048, though 1501 pairs were found
    assert (merged["bert_mask"][:, 0] == 1).sum() == 2048
    assert (merged["bert_mask"][:, -1] == 1).sum() == 2048


def test_copies_of_one_chain_share_their_alignment():
    merged = multimer.assemble([chain("ACDE", 6), chain("ACDE", 6)], 0)
    assert merged["msa"].shape == (6, 8)
    np.testing.assert_array_equal(merged["msa"][:, :4], merged["msa"][:, 4:])
    assert merged["cluster_bias_mask"].tolist() == [1, 0, 0, 0, 0, 0]
    assert merged["bert_mask"].all()


def test_padded_rows_are_masked():
    merged = multimer.assemble([chain("ACDE", 6), chain("ACDE", 6)])
    assert len(merged["msa"]) == 512 and merged["num_alignments"] == 6
    assert not merged["msa_mask"][6:].any() and not merged["bert_mask"][6:].any()
    assert merged["template_aatype"].shape == (4, 8) and merged["num_templates"] == 0


def test_inputs_are_not_changed():
    chains = [chain(query, 3, alignment(query, 3, ["HUMAN", "YEAST"])) for query in ("ACDE", "KLM")]
    before = [{name: array.copy() for name, array in one.items()} for one in chains]
    multimer.assemble(chains)
    for one, copy in zip(chains, before, strict=True):
        assert set(one) == set(copy)
        for name in one:
            np.testing.assert_array_equal(one[name], copy[name])
