"""Makes the three demonstration databases of `parafold/data/demo_databases`.

    python experiments/make_demo_data.py [FOLDER]

Each example protein gets a family: its sequence evolves along a random tree, with BLOSUM62 exchanges, a rate
for each site and short insertions and deletions, and half of the members sit inside a longer chain. Decoys
fill the rest: random chains of background composition, and members with their residues shuffled. Residues
divide 59 : 17 : 71, as among uniref90, small_bfd and mgnify. No natural sequence is in them: the families'
roots, which are the examples themselves, are left out.

The same bytes come out on every machine: Python's own generator from one seed, and no other library.
"""

import math
import random
import sys
from bisect import bisect
from itertools import accumulate
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SEED = 20240
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
# Residue frequencies of proteins, in per cent.
COMPOSITION = (
    8.3,
    1.4,
    5.5,
    6.7,
    3.9,
    7.1,
    2.3,
    5.9,
    5.8,
    9.7,
    2.4,
    4.1,
    4.7,
    3.9,
    5.5,
    6.6,
    5.3,
    6.9,
    1.1,
    2.9,
)
BLOSUM62 = """
4
0 9
-2 -3 6
-1 -4 2 5
-2 -2 -3 -3 6
0 -3 -1 -2 -3 6
-2 -3 -1 0 -1 -2 8
-1 -1 -3 -3 0 -4 -3 4
-1 -3 -1 1 -3 -2 -1 -3 5
-1 -1 -4 -3 0 -4 -3 2 -2 4
-1 -1 -3 -2 0 -3 -2 1 -1 2 5
-2 -3 1 0 -3 0 1 -3 0 -3 -2 6
-1 -3 -1 -1 -4 -2 -2 -3 -1 -3 -2 -2 7
-1 -3 0 2 -3 -2 0 -3 1 -2 0 0 -1 5
-1 -3 -2 0 -3 -2 0 -3 2 -2 -1 0 -2 1 5
1 -1 0 0 -2 0 -1 -2 0 -2 -1 1 -1 0 -1 4
0 -1 -1 -1 -2 -2 -2 -1 -1 -1 -1 0 -1 -1 -1 1 5
0 -1 -3 -2 -1 -3 -3 3 -2 1 1 -3 -2 -2 -3 -2 0 4
-3 -2 -4 -3 1 -2 -2 -3 -3 -2 -1 -4 -4 -2 -3 -3 -2 -3 11
-2 -2 -3 -2 3 -3 2 -1 -2 -1 -1 -2 -3 -1 -2 -2 -2 -1 2 7
"""

DATABASES = {"uniref90_demo": 59, "small_bfd_demo": 17, "mgnify_demo": 71}
TOTAL_RESIDUES = 1_800_000
FAMILY_MEMBERS = 600
SPECIES = 120
# Residues whose exchange mostly breaks a fold change more slowly.
SLOW = {"C": 0.2, "W": 0.3, "G": 0.5, "P": 0.6, "Y": 0.7, "F": 0.7}
MEAN_BRANCH = 0.18
INDELS_PER_SITE = 0.01
LINE = 60


def exchange_tables() -> dict[str, list[float]]:
    """For each residue the cumulative probabilities of what replaces it: P(b|a) ~ p(b) 2^(S(a,b)/2)."""
    rows = [[int(score) for score in line.split()] for line in BLOSUM62.split("\n") if line]
    tables = {}
    for i, letter in enumerate(LETTERS):
        scores = [rows[max(i, j)][min(i, j)] for j in range(len(LETTERS))]
        weights = [p * 2 ** (score / 2) for p, score in zip(COMPOSITION, scores, strict=True)]
        tables[letter] = list(accumulate(weights))
    return tables


EXCHANGES = exchange_tables()
BACKGROUND = list(accumulate(COMPOSITION))


def draw(rng: random.Random, table: list[float]) -> str:
    return LETTERS[bisect(table, rng.random() * table[-1])]


def random_chain(rng: random.Random, length: int) -> str:
    return "".join(draw(rng, BACKGROUND) for _ in range(length))


def child(rng: random.Random, sites: list[tuple[str, float]], branch: float) -> list[tuple[str, float]]:
    """One descendant. A site is (residue, rate); what is inserted evolves at the mean rate."""
    out = []
    skip = 0
    for residue, rate in sites:
        if skip:
            skip -= 1
            continue
        if rng.random() < INDELS_PER_SITE * branch * rate:
            length = 1 + int(rng.expovariate(0.7))
            if rng.random() < 0.5:
                skip = length - 1
                continue
            out += [(draw(rng, BACKGROUND), 1.0) for _ in range(length)]
        if rng.random() > math.exp(-branch * rate):
            residue = draw(rng, EXCHANGES[residue])
        out.append((residue, rate))
    return out


def family(rng: random.Random, root: str) -> list[str]:
    """Descendants of a root along a random tree: each new one descends from any that is there."""
    tree = [[(residue, rng.gammavariate(1.0, 1.0) * SLOW.get(residue, 1.0)) for residue in root]]
    for _ in range(FAMILY_MEMBERS):
        tree.append(child(rng, rng.choice(tree), rng.expovariate(1 / MEAN_BRANCH)))
    return ["".join(residue for residue, _ in sites) for sites in tree[1:]]


def embedded(rng: random.Random, member: str) -> str:
    """Half of the members with a chain on either side."""
    if rng.random() < 0.5:
        return member
    return random_chain(rng, rng.randrange(80)) + member + random_chain(rng, rng.randrange(80))


def decoy(rng: random.Random, members: list[str]) -> str:
    if rng.random() < 0.3:
        letters = [letter for _ in range(3) for letter in rng.choice(members)]
        rng.shuffle(letters)
        return "".join(letters)
    return random_chain(rng, min(600, 40 + int(rng.expovariate(1 / 180))))


def header(database: str, number: int, species: int, what: str) -> str:
    """A name of the form that the database of that name has, with an accession that no real one uses."""
    entry = f"DEMO{number:06d}"
    if database.startswith("uniref90"):
        taxon = f"n=1 Tax=Simulated species {species} RepID={entry}_SIM{species:02X}"
        return f"UniRef90_{entry} Simulated {what} {taxon}"
    if database.startswith("mgnify"):
        return f"MGYP9999{number:08d} Simulated {what}"
    return f"tr|{entry}|{entry}_SIM{species:02X} Simulated {what} OS=Simulated species {species}"


def roots(examples: Path) -> list[tuple[str, str]]:
    """(name, sequence) of each different chain of the examples."""
    found: dict[str, str] = {}
    for path in sorted(examples.glob("*.fasta")):
        _, *lines = path.read_text().splitlines()
        for sequence in "".join(lines).split(":"):
            found.setdefault(sequence, path.stem)
    return [(name, sequence) for sequence, name in found.items()]


def make(folder: Path) -> None:
    rng = random.Random(SEED)
    families = [(name, sequence, family(rng, sequence)) for name, sequence in roots(ROOT / "examples")]
    members = [member for _, _, found in families for member in found]
    records: list[tuple[int, str, str]] = []
    for name, root, found in families:
        for i, member in enumerate(found):
            if member != root and len(member) >= len(root) // 2:
                records.append((i % SPECIES, f"{name} family protein", embedded(rng, member)))
    missing = TOTAL_RESIDUES - sum(len(sequence) for _, _, sequence in records)
    while missing > 0:
        records.append((rng.randrange(SPECIES), "protein", decoy(rng, members)))
        missing -= len(records[-1][2])
    rng.shuffle(records)

    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, list[str]] = {database: [] for database in DATABASES}
    filled = dict.fromkeys(DATABASES, 0)
    for number, (species, what, sequence) in enumerate(records, start=1):
        database = min(DATABASES, key=lambda name: filled[name] / DATABASES[name])
        filled[database] += len(sequence)
        lines = [sequence[i : i + LINE] for i in range(0, len(sequence), LINE)]
        parts[database].append("\n".join([">" + header(database, number, species + 1, what), *lines, ""]))
    for database, texts in parts.items():
        (folder / f"{database}.fasta").write_text("".join(texts), newline="\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "parafold" / "data" / "demo_databases")
