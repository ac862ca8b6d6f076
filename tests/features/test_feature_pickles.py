import os
import pickle
import random
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parafold.errors import FeaturesError
from parafold.features import (
    build,
    read_features,
    read_features_pickle,
    write_features,
    write_features_pickle,
)
from parafold.protein.alignment import Msa
from parafold.protein.sequence import Chain, FoldInput

A, B = "ACDEF", "MNP"


def features(*sequences):
    chains = tuple(Chain("ABC"[n], sequence, "t") for n, sequence in enumerate(sequences))
    rows = {s: Msa([s, "-" * len(s)], np.ones((2, len(s)), np.int32), ["q", "r"]) for s in sequences}
    return build(FoldInput("t", chains), {sequence: {"db": msa} for sequence, msa in rows.items()})


def equal(one, other):
    return (
        (one.name, one.kind, one.sequences) == (other.name, other.kind, other.sequences)
        and set(one.arrays) == set(other.arrays)
        and all(
            one.arrays[name].dtype == array.dtype and np.array_equal(one.arrays[name], array)
            for name, array in other.arrays.items()
        )
    )


@pytest.fixture(scope="module", params=[(A,), (A, B), (A, A)], ids=["monomer", "heteromer", "homomer"])
def written(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("pickles") / "features.pkl"
    original = features(*request.param)
    write_features_pickle(path, original)
    return original, path


def test_what_is_written_is_read(written):
    original, path = written
    assert equal(read_features_pickle(path, name="t"), original)


def test_alphafold_reads_what_is_written(written):
    original, path = written
    content = pickle.loads(path.read_bytes())  # our own file; AlphaFold reads it this way
    assert set(content) == set(original.arrays)
    for name, array in content.items():
        text = original.arrays[name].dtype.kind == "S"
        assert array.dtype == (object if text else original.arrays[name].dtype)
        assert array.tolist() == original.arrays[name].tolist()


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol(written, tmp_path, protocol):
    original, path = written
    content = pickle.loads(path.read_bytes())
    (tmp_path / "x").write_bytes(pickle.dumps(content, protocol))
    assert equal(read_features_pickle(tmp_path / "x", "t"), original)


def test_older_forms(tmp_path):
    original = features(A)
    content = {name: array for name, array in original.arrays.items() if array.dtype.kind != "S"}
    content |= {
        "aatype": np.asfortranarray(original.arrays["aatype"].astype(np.float32)),
        "msa": original.arrays["msa"].astype(">i8"),
        "template_aatype": np.array([], np.float32),
        "template_all_atom_mask": np.array([], np.float32),  # OpenFold's name
        "template_all_atom_positions": np.array([], np.float32),
        "template_domain_names": np.array([], object),
        "template_sequence": [],
        "template_sum_probs": np.array([], np.float32),
        "sequence": np.array([A], object),
        "domain_name": "t",
        "something_else": {"deep": [1, 2.5, None, True]},
    }
    del content["template_all_atom_masks"]
    (tmp_path / "x").write_bytes(pickle.dumps(content))
    arrays = {name: array for name, array in original.arrays.items() if name != "msa_species_identifiers"}
    got = read_features_pickle(tmp_path / "x")
    assert got.name == "t" and got.sequences == (A,)
    assert set(got.arrays) == set(arrays)
    for name, array in arrays.items():
        assert got.arrays[name].dtype == array.dtype and got.arrays[name].shape == array.shape, name
        np.testing.assert_array_equal(got.arrays[name], array)
    write_features(tmp_path / "y", got)
    assert equal(read_features(tmp_path / "y"), got)


def test_a_name_from_the_folder(tmp_path):
    (tmp_path / "T1024").mkdir()
    write_features_pickle(tmp_path / "T1024" / "features.pkl", features(A, B))
    assert read_features_pickle(tmp_path / "T1024" / "features.pkl").name == "T1024"


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def gadgets(marker: Path):
    touch = f"touch {marker}"
    yield Calls(os.system, touch), "system"
    yield Calls(subprocess.check_output, ["touch", str(marker)]), "check_output"
    yield Calls(eval, f"open({str(marker)!r}, 'w')"), "builtins.eval|__builtin__.eval"
    yield Calls(getattr, {}, "keys"), "getattr"
    yield Calls(np.load, str(marker)), "numpy.load"
    yield Calls(random.Random, 1), "random.Random"
    yield Calls(np.zeros, 10**13), "numpy.zeros"
    yield np.array([Calls(os.system, touch)], object), "system"
    yield Path("x"), "pathlib"


@pytest.mark.parametrize("index", range(9))
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_nothing_in_the_file_is_run(tmp_path, index, protocol):
    marker = tmp_path / "marker"
    gadget, words = list(gadgets(marker))[index]
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"msa": gadget}, protocol))
    with pytest.raises(FeaturesError, match=rf"evil.pkl: refused.*it asks for .*({words})"):
        read_features_pickle(path)
    assert not marker.exists()


def test_the_gadget_would_have_worked(tmp_path):
    pickle.loads(pickle.dumps(Calls(os.system, f"touch {tmp_path / 'marker'}")))
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("protocol", [0, 4])
def test_no_memory_is_given_on_demand(tmp_path, protocol):
    (tmp_path / "x").write_bytes(pickle.dumps({"msa": Calls(bytes, 10**13)}, protocol))
    with pytest.raises(FeaturesError, match="refused"):
        read_features_pickle(tmp_path / "x")


def opcodes(*parts):
    return b"".join(parts) + b"."


@pytest.mark.parametrize(
    "content, words",
    [
        (opcodes(b"\x80\x04", b"\x95" + (10**18).to_bytes(8, "little"), b"}"), "refused, or damaged"),
        (opcodes(b"\x80\x04}", b"r" + (2**31).to_bytes(4, "little")), "memory index"),
        (opcodes(b"\x80\x04}", b"p4000000000\n"), "memory index"),
        (opcodes(b"\x80\x02\x82\x01"), "EXT1"),
        (opcodes(b"\x80\x02Vx\nQ"), "BINPERSID"),
        (opcodes(b"\x80\x04", b"(" * 200, b"l" * 200), "nested too deeply"),
        (opcodes(b"\x80\x04", b"]" * 3, b"a" * 2), "holds a list, not a dict"),
        (b"", "refused, or damaged"),
        (b"not a pickle", "refused, or damaged"),
    ],
)
def test_damaged_or_hostile_instructions(tmp_path, content, words):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(FeaturesError, match=words):
        read_features_pickle(tmp_path / "x")


def as_pickled_array(state):
    """A pickle of {"msa": array} whose array has this state, as `pickle` would write a numpy array."""

    class Stated:
        def __reduce__(self):
            return np.zeros(0).__reduce__()[0], (np.ndarray, (0,), b"b"), state

    return pickle.dumps({"msa": Stated(), "sequence": [b"ACDEF"]}, 4)


@pytest.mark.parametrize(
    "state",
    [
        (1, (10**15,), np.dtype("i4"), False, b""),
        (1, (-5,), np.dtype("i4"), False, b""),
        (1, (2, 3), np.dtype("i4"), False, b"\0" * 20),
        (1, (1,), np.dtype("i4"), False, [1]),
        (1, (1,), np.dtype("O"), False, b"\0" * 8),
        (1, (3,), np.dtype("O"), False, [b"a"]),
        (1, (1,), np.dtype("O"), False, [{}]),
        (1, (1,), np.dtype([("a", "i4")]), False, b"\0" * 4),
        (1, (1,), np.dtype("M8[s]"), False, b"\0" * 8),
        (1, 7, np.dtype("i4"), False, b""),
        (1, (1,), "i4", False, b"\0" * 4),
        "nothing",
    ],
)
def test_damaged_arrays(tmp_path, state):
    (tmp_path / "x").write_bytes(as_pickled_array(state))
    with pytest.raises(FeaturesError, match=r"array msa: |array aatype is missing|refused"):
        read_features_pickle(tmp_path / "x")


def test_a_right_array_by_the_same_way(tmp_path):
    state = (1, (1, 5), np.dtype("i4"), False, np.arange(5, dtype=np.int32).tobytes())
    (tmp_path / "x").write_bytes(as_pickled_array(state))
    with pytest.raises(FeaturesError, match="array aatype is missing"):
        read_features_pickle(tmp_path / "x")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"msa": np.full((2, 5), 22)}, "array msa holds values from 22 to 22"),
        ({"msa": np.full((2, 5), 2**40)}, "array msa does not fit into int32"),
        ({"msa": np.full((2, 5), 1.5)}, "array msa does not fit into int32"),
        ({"msa": np.full((2, 5), b"a", object)}, "array msa holds text"),
        ({"msa": "ACDEF"}, "array msa: a str is not an array"),
        ({"msa": None}, "array msa: a NoneType is not an array"),
        ({"sequence": np.array([b"ACDEG"], object)}, "aatype does not spell"),
        ({"sequence": 7}, "array sequence: an array holds objects that are not text"),
        (
            {"template_all_atom_positions": np.zeros((2, 5, 37, 3), np.float32)},
            "template_all_atom_positions has",
        ),
    ],
)
def test_wrong_values(tmp_path, change, words):
    content = {name: array for name, array in features(A).arrays.items()} | change
    (tmp_path / "x").write_bytes(pickle.dumps(content))
    with pytest.raises(FeaturesError, match=words):
        read_features_pickle(tmp_path / "x")


def test_files_that_are_not_there_or_too_large(written, tmp_path):
    with pytest.raises(FeaturesError, match="nowhere: cannot be read"):
        read_features_pickle(tmp_path / "nowhere")
    with pytest.raises(FeaturesError, match="cannot be read"):
        read_features_pickle(tmp_path)
    with pytest.raises(FeaturesError, match="more than the 10 bytes allowed"):
        read_features_pickle(written[1], max_bytes=10)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_damage_ends_in_an_error_or_in_features(written, tmp_path_factory, data):
    content = bytearray(written[1].read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    damaged = tmp_path_factory.getbasetemp() / "damaged.pkl"
    damaged.write_bytes(content)
    try:
        result = read_features_pickle(damaged)
    except FeaturesError as error:
        assert str(error).startswith(str(damaged)) and "\n" not in str(error)
    else:
        # A pickle has no digests: a value may be another one, but what is read is valid and can be stored.
        write_features(tmp_path_factory.getbasetemp() / "damaged.safetensors", result)


@pytest.mark.skipif(
    "PARAFOLD_DATA" not in os.environ, reason="needs PARAFOLD_DATA, a folder of real examples"
)
@pytest.mark.parametrize("file", ["features.pkl", "alphafold_feature_dict.pickle"])
def test_real_pickles(file, tmp_path):
    got = read_features_pickle(Path(os.environ["PARAFOLD_DATA"]) / "openfold_2q_short" / file)
    assert got.kind == "monomer" and len(got.arrays["msa"]) > 1000
    write_features(tmp_path / "x", got)
    assert equal(read_features(tmp_path / "x"), got)
    write_features_pickle(tmp_path / "y", got)
    assert equal(read_features_pickle(tmp_path / "y"), got)
