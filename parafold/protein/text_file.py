"""Reading the text files that people hand in, which are not always what their name says."""

from pathlib import Path

from parafold.errors import InputError

# More than the proteomes of a hundred bacteria; a file beyond it is not meant as an input.
MAX_BYTES = 256 * 2**20

_PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\x00": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
    b"PK\x03\x04": ("zip", "unzip"),
}
_HTML = ("<!doctype", "<html", "<head", "<body", "<?xml")


def read_text(path: str | Path, expected: str) -> str:
    """The text of a UTF-8 file.

    `expected` names what the file should be, for the messages. Raises InputError where it is missing, a
    folder, unreadable, empty, too large, packed, binary, a web page, or in another encoding.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the name") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; give a {expected} file") from None
    except PermissionError:
        raise InputError(f"{path}: not allowed to read it; check its permissions") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES // 2**20} MiB; split it into several files")
    for magic, (kind, tool) in _PACKED.items():
        if data.startswith(magic):
            raise InputError(f"{path} is {kind}-compressed; unpack it first: {tool} {path}")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path} is UTF-16 text; save it as UTF-8")
    if b"\x00" in data:
        raise InputError(f"{path} is a binary file, not {expected}; give a text file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path} line {line}: not UTF-8 text; save the file as UTF-8") from None
    start = text[:1000].strip().lower()
    if not start and not text.strip():
        raise InputError(f"{path} is empty; give a {expected} file")
    if start.startswith(_HTML):
        raise InputError(f"{path} is a web page (HTML or XML), not {expected}; download the file itself")
    return text
