import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from parafold.errors import FeaturesError
from parafold.features import build, read_features, write_features
from parafold.protein.alignment import Msa
from parafold.protein.sequence import Chain, FoldInput

A, B = "ACDEF", "MNP"


def features(*sequences, templates=None):
    chains = tuple(Chain("ABCDEF"[n], sequence, "Zoë's") for n, sequence in enumerate(sequences))
    msas = {
        sequence: {
            "db": Msa(
                [sequence, "-" * len(sequence)],
                np.ones((2, len(sequence)), np.int32),
                ["q", "tr|A0A0000001|A0A0000001_HUMAN"],
            )
        }
        for sequence in sequences
    }
    return build(FoldInput("t", chains), msas, templates)


def equal(one, other):
    return (
        (one.name, one.kind, one.sequences) == (other.name, other.kind, other.sequences)
        and set(one.arrays) == set(other.arrays)
        and all(
            one.arrays[name].dtype == array.dtype
            and one.arrays[name].shape == array.shape
            and (one.arrays[name] == array).all()
            for name, array in other.arrays.items()
        )
    )


@pytest.fixture(scope="module", params=[(A,), (A, B), (A, A)], ids=["monomer", "heteromer", "homomer"])
def written(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "features.safetensors"
    original = features(*request.param)
    write_features(path, original)
    return original, path


def test_what_is_written_is_read(written):
    original, path = written
    assert equal(read_features(path), original)


def test_the_same_features_give_the_same_bytes(written, tmp_path):
    original, path = written
    shuffled = dict(reversed(original.arrays.items()))
    write_features(tmp_path / "again", replace(original, arrays=shuffled))
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damage_is_noticed(written, tmp_path_factory, data):
    original, path = written
    content = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        # Most of the file is arrays; the header deserves as many tries.
        last = data.draw(st.sampled_from([8, header, len(content)]))
        content[data.draw(st.integers(0, last - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    damaged = tmp_path_factory.getbasetemp() / "damaged"
    damaged.write_bytes(content)
    try:
        result = read_features(damaged)
    except FeaturesError as error:
        assert "damaged" in str(error) and "\n" not in str(error)
    else:
        assert equal(result, original)


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=200))
def test_other_files_are_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "other"
    path.write_bytes(content)
    with pytest.raises(FeaturesError, match=r"other.*build the features again"):
        read_features(path)


def rewritten(written, path, change_header=None, change_tensors=None, sign=True):
    """The file with changes that a program could make: digests fit unless `sign` is False."""
    _, original = written
    tensors = {name: array.copy() for name, array in safetensors.numpy.load_file(original).items()}
    with safetensors.safe_open(original, framework="numpy") as stream:
        header = json.loads(stream.metadata()["parafold"])
    del header["sha256"]
    if change_tensors:
        change_tensors(tensors)
    for name, entry in header["arrays"].items():
        if name in tensors and sign:
            entry["sha256"] = hashlib.sha256(tensors[name].tobytes()).hexdigest()
    if change_header:
        change_header(header)
    header["sha256"] = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()
    path.write_bytes(safetensors.numpy.save(tensors, metadata={"parafold": json.dumps(header)}))
    return path


def drop(name):
    def change(header):
        del header["arrays"][name]

    return change


def put(name, index, value):
    def change(tensors):
        tensors[name][index] = value

    return change


def swap(name, array):
    def change(tensors):
        tensors[name] = array

    return change


@pytest.mark.parametrize(
    "header, tensors, words",
    [
        (lambda h: h.update(version=2), None, "version 2 of the format, this program reads 1"),
        (lambda h: h.update(format="else"), None, "header is damaged"),
        (lambda h: h.update(kind="ligand"), None, "kind 'ligand'"),
        (lambda h: h.update(kind=[]), None, "kind"),
        (lambda h: h.update(sequences=[]), None, "chains of 0 residues"),
        (lambda h: h.update(sequences=["A" * 200_000]), None, "chains of 200000 residues"),
        (lambda h: h.update(sequences=7), None, "header is damaged"),
        (lambda h: h.update(arrays=7), None, "header is damaged"),
        (lambda h: h["arrays"].update(msa=7), None, "header is damaged"),
        (lambda h: h["arrays"].update(msa={"dtype": "int32", "shape": ["x"], "sha256": ""}), None, "damaged"),
        (lambda h: h.pop("name"), None, "header is damaged"),
        (drop("msa"), None, "array msa is missing"),
        (lambda h: h["arrays"].update(extra=h["arrays"]["msa"]), None, "array extra is not one of"),
        (lambda h: h["arrays"]["msa"].update(dtype="int64"), None, "array msa is int64 instead of int32"),
        (lambda h: h["arrays"]["msa"].update(shape=[10**15, 5]), None, "array msa (has shape|is stored as)"),
        (None, lambda t: t.pop("msa"), "array msa is not both announced and stored"),
        (None, lambda t: t.update(more=np.zeros(3)), "array more is not both announced and stored"),
        (None, put("msa", (1, 2), 22), "array msa holds values from . to 22, outside 0 to 21"),
        (None, put("msa", (1, 2), -1), "array msa holds values from -1"),
        (None, put("template_all_atom_positions", ..., np.nan), None),
        (None, lambda t: t.update(msa=t["msa"].astype(np.int64)), "array msa is stored as int64, not int32"),
        (None, lambda t: t.update(msa=t["msa"][:1].copy()), "array msa is stored as"),
    ],
)
def test_what_is_wrong_is_said(written, tmp_path, header, tensors, words):
    path = rewritten(written, tmp_path / "wrong.safetensors", header, tensors)
    if words is None:  # there are no templates whose positions could be wrong, or they are padding
        words = "template_all_atom_positions holds numbers that are not finite"
        if written[0].kind == "monomer":
            assert equal(read_features(path), written[0])
            return
    with pytest.raises(FeaturesError, match=words) as caught:
        read_features(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_an_array_that_does_not_fit_its_digest(written, tmp_path):
    path = rewritten(written, tmp_path / "x", None, put("residue_index", 0, 5), sign=False)
    with pytest.raises(FeaturesError, match="array residue_index does not fit its digest"):
        read_features(path)


def test_a_header_that_does_not_fit_its_digest(written, tmp_path):
    content = written[1].read_bytes()
    assert content.count(b'\\"name\\": \\"t\\"') == 1
    (tmp_path / "x").write_bytes(content.replace(b'\\"name\\": \\"t\\"', b'\\"name\\": \\"u\\"'))
    with pytest.raises(FeaturesError, match="header does not fit its digest"):
        read_features(tmp_path / "x")


def test_arrays_that_contradict_the_sequence(tmp_path):
    original = features(A)
    for change, words in [
        ({"aatype": np.eye(21, dtype=np.int32)[[0, 0, 0, 0, 0]]}, "aatype does not spell"),
        ({"aatype": np.ones((5, 21), np.int32)}, "aatype is not one-hot"),
        ({"num_alignments": np.full(5, 3, np.int32)}, "num_alignments says 3, there are 2"),
        ({"seq_length": np.full(5, 6, np.int32)}, "seq_length says 6, there are 5"),
        ({"residue_index": np.arange(6, dtype=np.int32)}, r"residue_index has shape \[6\] instead of \[5\]"),
        ({"deletion_matrix_int": np.zeros((3, 5), np.int32)}, r"msa has shape \[2, 5\] instead of \[3, 5\]"),
        ({"deletion_matrix_int": np.full((2, 5), -1, np.int32)}, "deletion_matrix_int holds values from -1"),
        ({"template_sum_probs": np.full((0, 2), 1, np.float32)}, "template_sum_probs has shape"),
    ]:
        with pytest.raises(FeaturesError, match=words):
            write_features(tmp_path / "x", replace(original, arrays=original.arrays | change))
    assert not (tmp_path / "x").exists()


def test_half_of_a_template(tmp_path):
    original = features(A)
    arrays = {name: array for name, array in original.arrays.items() if name != "template_domain_names"}
    with pytest.raises(FeaturesError, match="array template_domain_names is missing"):
        write_features(tmp_path / "x", replace(original, arrays=arrays))
    without = {name: array for name, array in arrays.items() if not name.startswith("template_")}
    write_features(tmp_path / "x", replace(original, arrays=without))
    assert equal(read_features(tmp_path / "x"), replace(original, arrays=without))


def test_files_that_are_not_there_or_too_large(written, tmp_path):
    with pytest.raises(FeaturesError, match=r"nowhere: cannot be read, No such file"):
        read_features(tmp_path / "nowhere")
    with pytest.raises(FeaturesError, match=r"cannot be read|not a features file"):
        read_features(tmp_path)
    size = written[1].stat().st_size
    with pytest.raises(FeaturesError, match=f"{size} bytes are more than the {size - 1} allowed"):
        read_features(written[1], max_bytes=size - 1)


def test_a_safetensors_file_of_something_else(tmp_path):
    safetensors.numpy.save_file({"weight": np.zeros(3)}, tmp_path / "x")
    with pytest.raises(FeaturesError, match="not of features; give the right file"):
        read_features(tmp_path / "x")


def test_views_and_fortran_order_are_stored_as_they_look(tmp_path):
    original = features(A)
    changed = {
        "msa": np.asfortranarray(original.arrays["msa"]),
        "aatype": original.arrays["aatype"][::-1][::-1],
    }
    write_features(tmp_path / "x", replace(original, arrays=original.arrays | changed))
    assert equal(read_features(tmp_path / "x"), original)
