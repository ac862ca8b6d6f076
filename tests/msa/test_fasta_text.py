import re

from hypothesis import given
from hypothesis import strategies as st

from parafold.msa.fasta_text import count_line_ends, easel_position, record_position, record_starts

TEXT = st.text(">A \n\r", max_size=60).map(str.encode)


def pieces(text: bytes, size: int) -> list[bytes]:
    return [text[at : at + size] for at in range(0, len(text), size)]


@given(TEXT, st.integers(1, 7))
def test_pieces_of_any_size_give_the_same(text: bytes, size: int):
    lines = re.split(rb"\r\n|\n|\r", text)
    assert count_line_ends(pieces(text, size)) == len(lines) - 1
    starts = [header.start() for header in re.finditer(rb">[^\n\r]*", text)]
    assert [at + start for at, some in record_starts(pieces(text, size)) for start in some] == starts
    assert [record_position(pieces(text, size), i) for i in range(len(starts))] == starts
    for line_ends in range(4):
        assert easel_position(pieces(text, size), line_ends) == easel_position([text], line_ends)


def test_line_ends_that_easel_does_not_count():
    text = b"\n\n>a\n\n\nACD\n\nAC1\n"
    assert [easel_position([text], count) for count in range(5)] == [2, 7, 12, 12, 16]
