"""The download runs against a real HTTP server on this machine, with a small archive made here."""

import base64
import hashlib
import io
import subprocess
import sys
import tarfile
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from parafold import weights
from parafold.errors import OutputError, WeightsError

NAMES = ["model_1", "model_2_ptm", "model_3_multimer_v3"]


def npz(seed, size=20_000):
    rng = np.random.default_rng(seed)
    file = io.BytesIO()
    arrays = {"evoformer//weights": rng.normal(size=size).astype(np.float32), "evoformer//bias": np.zeros(3)}
    np.savez(file, **arrays)
    return file.getvalue()


def tar_of(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def parameters():
    return [(f"params_{name}.npz", npz(i)) for i, name in enumerate(NAMES)] + [("LICENSE", b"CC BY 4.0")]


@dataclass
class Published:
    """What the server holds and how it behaves; `ranges` collects the Range header of each request."""

    data: bytes
    etag: str = '"v1"'
    md5: str | None = None
    break_after: list[int] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    status: int = 200

    def stated_md5(self):
        return self.md5 or base64.b64encode(hashlib.md5(self.data).digest()).decode()


@pytest.fixture
def serve():
    """A function that publishes something and returns its address."""
    servers = []

    def start(published):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                asked = self.headers.get("Range")
                published.ranges.append(asked)
                if published.status != 200:
                    self.send_error(published.status)
                    return
                begin = 0
                if asked and self.headers.get("If-Range") == published.etag:
                    begin = int(asked.removeprefix("bytes=").removesuffix("-"))
                body = published.data[begin:]
                self.send_response(206 if begin else 200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", published.etag)
                self.send_header("x-goog-hash", "crc32c=AAAAAA==")
                self.send_header("x-goog-hash", f"md5={published.stated_md5()}")
                self.end_headers()
                if published.break_after:
                    body = body[: published.break_after.pop(0)]
                self.wfile.write(body)

            def log_message(self, format, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/params.tar"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_fetch_places_checked_parameters(serve, tmp_path):
    published = Published(tar_of(parameters()))
    seen = []
    found = weights.fetch(
        tmp_path / "w", lambda done, total: seen.append((done, total)), url=serve(published)
    )
    assert list(found) == NAMES
    for i, name in enumerate(NAMES):
        assert found[name].read_bytes() == npz(i)
    assert (tmp_path / "w" / "LICENSE").read_bytes() == b"CC BY 4.0"
    assert seen[-1] == (len(published.data), len(published.data))
    left = {file.name for file in (tmp_path / "w").iterdir()}
    assert left == {*(f"params_{name}.npz" for name in NAMES), "LICENSE", weights.RECORD}


def test_second_fetch_asks_nobody(serve, tmp_path):
    published = Published(tar_of(parameters()))
    url = serve(published)
    weights.fetch(tmp_path, url=url)
    assert list(weights.fetch(tmp_path, url=url)) == NAMES
    assert len(published.ranges) == 1


def test_a_lost_file_is_fetched_again(serve, tmp_path):
    published = Published(tar_of(parameters()))
    url = serve(published)
    weights.fetch(tmp_path, url=url)["model_1"].unlink()
    assert weights.fetch(tmp_path, url=url)["model_1"].read_bytes() == npz(0)


def test_broken_connections_are_resumed(serve, tmp_path):
    published = Published(tar_of(parameters()), break_after=[70_000, 50_000])
    weights.fetch(tmp_path, url=serve(published))
    assert published.ranges == [None, "bytes=70000-", "bytes=120000-"]
    assert weights.find(tmp_path)["model_2_ptm"].read_bytes() == npz(1)


def test_a_later_run_resumes_what_an_earlier_one_left(serve, tmp_path):
    published = Published(tar_of(parameters()), break_after=[70_000] + [0] * 4)
    url = serve(published)
    with pytest.raises(WeightsError, match="after 70000 bytes; run it again"):
        weights.fetch(tmp_path, url=url)
    assert list(weights.fetch(tmp_path, url=url)) == NAMES
    assert published.ranges[-1] == "bytes=70000-"


def test_a_file_that_changed_meanwhile_is_taken_whole(serve, tmp_path):
    published = Published(tar_of([("params_old.npz", npz(9))]), break_after=[40_000] + [0] * 4)
    url = serve(published)
    with pytest.raises(WeightsError):
        weights.fetch(tmp_path, url=url)
    published.data, published.etag = tar_of(parameters()), '"v2"'
    assert list(weights.fetch(tmp_path, url=url)) == NAMES


def test_wrong_digest_is_refused_and_removed(serve, tmp_path):
    url = serve(Published(tar_of(parameters()), md5=base64.b64encode(bytes(16)).decode()))
    with pytest.raises(WeightsError, match="damaged"):
        weights.fetch(tmp_path, url=url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../params_model_1.npz", "/tmp/params_model_1.npz", "a/../../LICENSE"])
def test_members_that_lead_out_are_refused(serve, tmp_path, name):
    url = serve(Published(tar_of([(name, npz(0))])))
    with pytest.raises(WeightsError, match="no parameter archive"):
        weights.fetch(tmp_path / "w", url=url)
    assert not list(tmp_path.rglob("*.npz"))
    assert not list(tmp_path.rglob("LICENSE"))


def test_links_are_refused(serve, tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo("params_model_1.npz")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(WeightsError, match="no parameter archive"):
        weights.fetch(tmp_path, url=serve(Published(file.getvalue())))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<html>not here</html>", "not an intact tar"),
        (tar_of(parameters())[:100_000], "not an intact tar"),
        (tar_of([("README", b"nothing")]), "holds no params"),
        (tar_of([("params_model_1.npz", npz(0)[:-500])]), "not an intact .npz"),
        (tar_of([("params_model_1.npz", b"")]), "not an intact .npz"),
    ],
)
def test_what_is_no_parameter_archive_is_refused(serve, tmp_path, data, message):
    with pytest.raises(WeightsError, match=message):
        weights.fetch(tmp_path, url=serve(Published(data)))
    left = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert left in ({}, {"params_model_1.npz": npz(0)})


@pytest.mark.parametrize("status", [404, 503])
def test_a_server_that_refuses_is_named(serve, tmp_path, status):
    published = Published(b"", status=status)
    with pytest.raises(WeightsError, match=f"answered {status}"):
        weights.fetch(tmp_path, url=serve(published))
    assert len(published.ranges) == (1 if status == 404 else 5)


def test_no_network(tmp_path):
    with pytest.raises(WeightsError, match="broke off"):
        weights.fetch(tmp_path, url="http://127.0.0.1:9/params.tar")


def test_a_full_disk_leaves_a_download_to_resume(serve, tmp_path):
    """The limit on file size stands in for the full disk: the write itself fails, in a process of its own."""
    published = Published(tar_of(parameters()))
    url = serve(published)
    program = (
        "import resource, sys; from parafold import weights; from parafold.errors import OutputError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: weights.fetch(sys.argv[1], url=sys.argv[2])\n"
        "except OutputError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), url],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "cannot be written" in done.stdout
    assert not list(tmp_path.glob("*.npz"))
    assert list(weights.fetch(tmp_path, url=url)) == NAMES


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        weights.fetch(tmp_path / "file" / "w", url="http://127.0.0.1:9/params.tar")


def test_find_takes_a_folder_its_parent_or_a_file(tmp_path):
    folder = tmp_path / "params"
    folder.mkdir()
    (folder / "params_model_1_ptm.npz").write_bytes(npz(0))
    (folder / "other.npz").write_bytes(npz(1))
    expected = {"model_1_ptm": folder / "params_model_1_ptm.npz"}
    assert weights.find(folder) == weights.find(tmp_path) == expected
    assert weights.find(folder / "params_model_1_ptm.npz") == expected
    assert weights.find(folder / "other.npz") == {"other": folder / "other.npz"}


def test_find_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with pytest.raises(WeightsError, match="parafold weights fetch"):
        weights.find()
    with pytest.raises(WeightsError, match="holds no params"):
        weights.find(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(WeightsError, match="not a parameter file"):
        weights.find(tmp_path / "notes.txt")


def test_check_npz_refuses_python_objects(tmp_path):
    np.savez(tmp_path / "a.npz", objects=np.array([{"a": 1}], dtype=object))
    with pytest.raises(WeightsError, match="no plain array"):
        weights.check_npz(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(npz(0))
    assert weights.check_npz(tmp_path / "b.npz") == 2
