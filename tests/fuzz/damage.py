"""Random damage to files: truncated, mixed up, bytes and odd tokens put in. Seeded."""

import random

TOKENS = (
    *(
        b"",
        b"\n",
        b"\r",
        b"\r\n",
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\x1f\x8b",
        b"\x0c",
        b"\x1c",
        b" ",
        b"\t",
    ),
    *(b">", b">>", b"\n>\n", b">\n>", b"#", b"#=GS x DE", b"#=GC RF ", b"//", b"\n//\n", b"|", b":", b"/1-2"),
    *(b"*", b"-", b".", b"~", b"0123456789", b"JOUBZX", b"acgt" * 80, b"-" * 300, b"A" * 3000, b"{", b"["),
    *("ß".encode(), "\u017f".encode(), "\u2028".encode(), "é".encode(), b"1e999", b"null", b"-1", b'"'),
)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """The data with one to three things wrong. It may come out as it was."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = rng.choice(_DAMAGES)(data, rng)
    return data


def _truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: _at(data, rng)]


def _beheaded(data: bytes, rng: random.Random) -> bytes:
    return data[_at(data, rng) :]


def _without_a_piece(data: bytes, rng: random.Random) -> bytes:
    start = _at(data, rng)
    return data[:start] + data[start + rng.choice((1, 2, 10, 100)) :]


def _with_a_flipped_bit(data: bytes, rng: random.Random) -> bytes:
    at = _at(data, rng)
    return data[:at] + bytes(byte ^ (1 << rng.randrange(8)) for byte in data[at : at + 1]) + data[at + 1 :]


def _with_a_token(data: bytes, rng: random.Random) -> bytes:
    at = _at(data, rng)
    return data[:at] + rng.choice(TOKENS) + data[at + rng.choice((0, 0, 1, 5)) :]


def _with_random_bytes(data: bytes, rng: random.Random) -> bytes:
    at = _at(data, rng)
    return data[:at] + rng.randbytes(rng.choice((1, 8, 64))) + data[at + rng.choice((0, 1, 64)) :]


def _with_a_piece_elsewhere(data: bytes, rng: random.Random) -> bytes:
    start, at = _at(data, rng), _at(data, rng)
    return data[:at] + data[start : start + rng.choice((1, 20, 200))] + data[at:]


def _with_lines_exchanged(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    return b"\n".join(lines)


def _with_other_line_ends(data: bytes, rng: random.Random) -> bytes:
    return data.replace(b"\n", rng.choice((b"\r", b"\r\n", b"\n\n", b" ", b"")))


_DAMAGES = (
    _truncated,
    _beheaded,
    _without_a_piece,
    _with_a_flipped_bit,
    _with_a_token,
    _with_random_bytes,
    _with_a_piece_elsewhere,
    _with_lines_exchanged,
    _with_other_line_ends,
)


def _at(data: bytes, rng: random.Random) -> int:
    return rng.randint(0, len(data))
