from pathlib import Path

import pytest

from parafold.errors import SearchError
from parafold.msa.layouts import databases_in_data_dir

UNIREF90 = "uniref90/uniref90.fasta"
MGNIFY = "mgnify/mgy_clusters_2022_05.fa"
SMALL_BFD = "small_bfd/bfd-first_non_consensus_sequences.fasta"
UNIPROT = "uniprot/uniprot.fasta"
BFD = "bfd/bfd_metaclust_clu_complete_id30_c90_final_seq.sorted_opt"
UNIREF30 = "uniref30/UniRef30_2021_03"
TEMPLATES = (
    "pdb70/pdb70_a3m.ffdata",
    "pdb70/pdb70_hhm.ffdata",
    "pdb_seqres/pdb_seqres.txt",
    "pdb_mmcif/mmcif_files/1abc.cif",
    "pdb_mmcif/obsolete.dat",
)


def make(folder: Path, *names: str) -> Path:
    for name in names:
        for file in (
            [name]
            if "." in Path(name).suffix and name != BFD
            else [f"{name}_{k}.ffdata" for k in ("a3m", "hhm")]
        ):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(b">a\nACDEF\n")
    return folder


def described(folder: Path, preset=None) -> list[tuple[str, str, str]]:
    found = databases_in_data_dir(folder, preset)
    return [(d.name, d.kind, d.path.relative_to(folder).as_posix()) for d in found.databases]


def test_full_dbs(tmp_path: Path):
    make(tmp_path, UNIREF90, MGNIFY, BFD, UNIREF30, UNIPROT, *TEMPLATES)
    found = databases_in_data_dir(tmp_path)
    assert found.preset == "full_dbs"
    assert described(tmp_path) == [
        ("uniref90", "uniref90", UNIREF90),
        ("bfd_uniref", "bfd", BFD),
        ("mgnify", "mgnify", MGNIFY),
        ("uniprot", "uniprot", UNIPROT),
    ]
    assert [d.max_hits for d in found.databases] == [10_000, None, 501, 50_000]
    bfd = found.databases[1]
    assert bfd.also == (tmp_path / UNIREF30,) and bfd.format == "hhsuite"
    assert len(bfd.files) == 4
    assert (found.pdb70, found.pdb_seqres) == (
        tmp_path / "pdb70/pdb70",
        tmp_path / "pdb_seqres/pdb_seqres.txt",
    )
    assert found.mmcif_files == tmp_path / "pdb_mmcif/mmcif_files"
    assert found.obsolete == tmp_path / "pdb_mmcif/obsolete.dat"


def test_reduced_dbs_without_templates(tmp_path: Path):
    found = databases_in_data_dir(make(tmp_path, UNIREF90, MGNIFY, SMALL_BFD))
    assert found.preset == "reduced_dbs"
    assert [d.name for d in found.databases] == ["uniref90", "small_bfd", "mgnify"]
    assert (found.pdb70, found.pdb_seqres, found.mmcif_files, found.obsolete) == (None,) * 4


def test_the_preset_chooses_where_both_are_there(tmp_path: Path):
    make(tmp_path, UNIREF90, SMALL_BFD, BFD, UNIREF30)
    assert [name for name, _, _ in described(tmp_path)] == ["uniref90", "bfd_uniref"]
    assert [name for name, _, _ in described(tmp_path, "full_dbs")] == ["uniref90", "bfd_uniref"]
    assert [name for name, _, _ in described(tmp_path, "reduced_dbs")] == ["uniref90", "small_bfd"]


@pytest.mark.parametrize(
    ("older", "newer", "chosen"),
    [
        ("mgnify/mgy_clusters_2018_12.fa", MGNIFY, MGNIFY),
        ("mgnify/mgy_clusters.fa", None, "mgnify/mgy_clusters.fa"),
        (f"{MGNIFY}.gz", None, f"{MGNIFY}.gz"),
        (f"{MGNIFY}-00000-of-00512", None, f"{MGNIFY}@512"),
    ],
)
def test_releases_packed_files_and_shards(tmp_path: Path, older: str, newer: str | None, chosen: str):
    make(tmp_path, older, *([newer] if newer else []))
    assert described(tmp_path) == [("mgnify", "mgnify", chosen)]


def test_the_older_uniclust30(tmp_path: Path):
    older = "uniclust30/uniclust30_2018_08/uniclust30_2018_08"
    (bfd,) = databases_in_data_dir(make(tmp_path, BFD, older)).databases
    assert bfd.also == (tmp_path / older,)


@pytest.mark.parametrize(
    ("there", "preset", "looked_for"),
    [
        ([], None, [UNIREF90, "mgnify/mgy_clusters*.fa", SMALL_BFD, UNIPROT, "bfd/", "uniref30/"]),
        ([UNIREF90, SMALL_BFD], "full_dbs", ["bfd/", "uniref30/", "uniclust30/"]),
        ([UNIREF90, BFD, UNIREF30], "reduced_dbs", [SMALL_BFD]),
        ([UNIREF90, BFD], None, ["uniref30/"]),
        ([UNIREF90, UNIREF30], None, ["bfd/"]),
        (list(TEMPLATES), None, [UNIREF90]),
    ],
)
def test_what_is_not_there_is_said(tmp_path: Path, there: list[str], preset, looked_for: list[str]):
    make(tmp_path, *there)
    with pytest.raises(SearchError, match="looked for") as caught:
        databases_in_data_dir(tmp_path, preset)
    assert all(name in str(caught.value) for name in [str(tmp_path), *looked_for])
    with pytest.raises(SearchError, match="no such folder"):
        databases_in_data_dir(tmp_path / "absent")
