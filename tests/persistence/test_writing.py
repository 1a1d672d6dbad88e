"""What cannot be written is refused, and nothing is lost."""

import os
import stat

import numpy as np
import pytest

from refnaf import persistence
from refnaf.persistence import atomic_write, check_writable, read_archive, write_archive


@pytest.mark.parametrize(("tensors", "header", "word"), [
    ({"x": np.array([1j])}, {}, "complex128"),
    ({"x": np.array(["a"])}, {}, "convert"),
    ({"x": np.array([None])}, {}, "object"),
    ({"x": np.array(["2020-01-01"], dtype="M8[D]")}, {}, "datetime64"),
    ({"x": np.zeros(2, dtype=[("a", "f4")])}, {}, "dtype"),
    ({3: np.zeros(2)}, {}, "name"),
    ({"__metadata__": np.zeros(2)}, {}, "__metadata__"),
    ({"\ud800": np.zeros(2)}, {}, "Unicode"),
    ({}, {"a": object()}, "JSON"),
    ({}, {"a": np.zeros(2)}, "ndarray"),
    ({}, {"a": b"x"}, "bytes"),
    ({}, {"a": {1: 1, "b": 2}}, "JSON"),
])  # fmt: skip
def test_what_cannot_be_stored(archive, tensors, header, word):
    before = archive.read_bytes()
    with pytest.raises(ValueError, match=word) as caught:
        write_archive(archive, tensors, header)
    assert "\n" not in str(caught.value)
    assert archive.read_bytes() == before
    assert os.listdir(archive.parent) == [archive.name]


def test_circular_header(tmp_path):
    header = {}
    header["self"] = header
    with pytest.raises(ValueError, match="JSON"):
        write_archive(tmp_path / "a", {}, header)


@pytest.mark.parametrize("step", ["fsync", "replace", "fdopen", "chmod"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failure_at_any_step_leaves_the_old_file(archive, monkeypatch, step, error):
    before = archive.read_bytes()

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(persistence.os, step, fail)
    with pytest.raises(type(error)):
        write_archive(archive, {"x": np.zeros(1000)}, {})
    monkeypatch.undo()
    assert archive.read_bytes() == before
    assert os.listdir(archive.parent) == [archive.name]


def test_failure_in_the_block_leaves_the_folder_as_it_was(archive):
    before = archive.read_bytes()

    def write_half(path):
        with atomic_write(path) as file:
            file.write(b"half")
            file.flush()
            assert archive.read_bytes() == before
            raise RuntimeError("half way")

    for path in (archive, archive.parent / "new"):
        with pytest.raises(RuntimeError, match="half way"):
            write_half(path)
        assert archive.read_bytes() == before
        assert os.listdir(archive.parent) == [archive.name]


def test_atomic_write(tmp_path):
    path = tmp_path / "new"
    with atomic_write(str(path)) as file:
        file.write(b"whole")
        assert not path.exists()
        assert len(os.listdir(tmp_path)) == 1
    assert path.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["new"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes and links")
def test_modes_and_links(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    with atomic_write(tmp_path / "new") as file:
        file.write(b"x")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode

    (tmp_path / "folder").mkdir()
    real = tmp_path / "folder" / "real"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(real)
    with atomic_write(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


@pytest.mark.parametrize("check", [check_writable, lambda path: write_archive(path, {}, {})])
class TestRefusedPaths:
    def refuse(self, check, path, kind, word):
        with pytest.raises(kind, match=word) as caught:
            check(path)
        assert "\n" not in str(caught.value)

    def test_empty(self, check):
        self.refuse(check, "", ValueError, "name a file")

    def test_folder(self, check, tmp_path):
        self.refuse(check, tmp_path, IsADirectoryError, "is a folder")
        self.refuse(check, str(tmp_path / "new") + "/", IsADirectoryError, "is a folder")

    def test_missing_folder(self, check, tmp_path):
        self.refuse(check, tmp_path / "a" / "b", FileNotFoundError, "does not exist; create it")
        assert os.listdir(tmp_path) == []

    def test_file_as_folder(self, check, tmp_path):
        (tmp_path / "a").write_bytes(b"")
        self.refuse(check, tmp_path / "a" / "b", NotADirectoryError, "not a folder")

    def test_long_name(self, check, tmp_path):
        self.refuse(check, tmp_path / ("x" * 5000), OSError, "cannot write")

    @pytest.mark.skipif(os.name == "nt", reason="no device files")
    def test_device(self, check):
        self.refuse(check, os.devnull, OSError, "not a regular file")
        assert stat.S_ISCHR(os.stat(os.devnull).st_mode)

    def test_read_only_file(self, check, tmp_path, monkeypatch):
        (tmp_path / "a").write_bytes(b"mine")
        monkeypatch.setattr(persistence.os, "access", lambda *args: False)
        self.refuse(check, tmp_path / "a", PermissionError, "read-only")
        assert (tmp_path / "a").read_bytes() == b"mine"

    def test_read_only_folder(self, check, tmp_path, monkeypatch):
        def fail(*args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(persistence.os, "open", fail)
        self.refuse(check, tmp_path / "a", PermissionError, "Permission denied")


def test_check_writable_leaves_nothing(archive):
    before = archive.read_bytes()
    check_writable(archive)
    check_writable(archive.parent / "new")
    assert archive.read_bytes() == before
    assert os.listdir(archive.parent) == [archive.name]


def test_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_writable("a")
    write_archive("a", {}, {})
    read_archive("a")
    assert os.listdir() == ["a"]
