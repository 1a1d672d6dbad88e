"""Files: what is read is what was written, and nothing else is ever read."""

import hashlib
import io
import json
import os
import pickle
import stat
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from refnaf import persistence
from refnaf.persistence import FileFormatError, atomic_write, check_writable, read_archive, write_archive

HEADER = {
    "kind": "flow",
    "model": "maf-ddsf",
    "config": {"dim": 3, "hidden": [8, 8], "gate": True, "note": None},
    "history": [{"epoch": 1, "train": -1.25, "validation": None}],
    "columns": ["temperature / °C", 'a "quoted" name', "日本"],
}
OWN_KEYS = {"format", "sha256", "header_sha256"}


def example_tensors():
    rng = np.random.default_rng(0)
    return {
        "weight": rng.normal(size=(3, 4)).astype(np.float32),
        "bias": rng.normal(size=5),
        "order": np.array([2, 0, 1]),
        "mask": np.array([[True, False], [False, True]]),
        "step": np.array(7, dtype=np.int32),
        "none": np.zeros((0, 3), dtype=np.float32),
    }


def same(first, second):
    return list(first) == list(second) and all(
        first[k].dtype == second[k].dtype and first[k].shape == second[k].shape
        and first[k].tobytes() == second[k].tobytes()
        for k in first
    )  # fmt: skip


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "model.safetensors"
    write_archive(path, example_tensors(), HEADER)
    return path


def refused(path, *words):
    """The error's line, after checking that it is one line that names the file."""
    with pytest.raises(FileFormatError) as caught:
        read_archive(path)
    message = str(caught.value)
    assert type(caught.value) is FileFormatError
    assert "\n" not in message
    assert message.startswith(str(path))
    for word in words:
        assert word in message
    return message


# ---- what is written comes back


def test_roundtrip(archive):
    tensors, header = read_archive(archive)
    expected = example_tensors()
    assert same(tensors, {k: expected[k] for k in sorted(expected)})
    assert {k: v for k, v in header.items() if k not in OWN_KEYS} == HEADER
    assert header["format"] == persistence.FORMAT
    assert len(header["sha256"]) == 64
    for array in tensors.values():
        assert array.flags.writeable
        assert array.flags.aligned


@pytest.mark.parametrize(
    "dtype", ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">f4", ">f8", ">i8"]
)
def test_every_dtype_and_byte_order(tmp_path, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    write_archive(tmp_path / "a", {"x": array}, {})
    back = read_archive(tmp_path / "a")[0]["x"]
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype.newbyteorder("=")


def test_special_numbers_keep_their_bits(tmp_path):
    array = np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 5e-324, 1.7e308])
    write_archive(tmp_path / "a", {"x": array}, {})
    assert read_archive(tmp_path / "a")[0]["x"].tobytes() == array.tobytes()


@pytest.mark.parametrize("view", [
    lambda a: a.T, lambda a: a[::2], lambda a: a[:, ::-1], lambda a: np.asfortranarray(a),
    lambda a: np.broadcast_to(a[0], (3, 5)), lambda a: a[1, 2], lambda a: a[:0],
])  # fmt: skip
def test_strided_views_are_stored_in_their_logical_order(tmp_path, view):
    array = view(np.arange(20.0).reshape(4, 5))
    write_archive(tmp_path / "a", {"x": array}, {})
    back = read_archive(tmp_path / "a")[0]["x"]
    np.testing.assert_array_equal(back, array)
    assert back.shape == np.shape(array)


def test_no_tensors_and_no_header(tmp_path):
    write_archive(tmp_path / "a", {}, {})
    tensors, header = read_archive(tmp_path / "a")
    assert tensors == {}
    assert set(header) == OWN_KEYS


def test_header_entries(tmp_path):
    header = {"a": np.float64(0.1), "b": np.int64(3), "c": np.float32(0.1), "d": np.bool_(True), "e": (1, 2),
              "f": float("-inf"), "g": 5e-324, "h": 2**80, "i": {10: "x", 9: "y"},
              "j": "caf\udce9 \x00 \n \U0001f600"}  # fmt: skip
    write_archive(tmp_path / "a", {}, header)
    back = {k: v for k, v in read_archive(tmp_path / "a")[1].items() if k not in OWN_KEYS}
    plain = {"b": 3, "c": float(np.float32(0.1)), "d": True, "e": [1, 2], "i": {"10": "x", "9": "y"}}
    assert back == {**header, **plain}
    assert type(back["b"]) is int
    assert type(back["d"]) is bool


def test_what_was_read_can_be_written_again_to_the_same_bytes(archive, tmp_path):
    write_archive(tmp_path / "again", *read_archive(archive))
    assert (tmp_path / "again").read_bytes() == archive.read_bytes()


def test_other_readers_open_it(archive):
    loaded = safetensors.numpy.load_file(archive)
    assert set(loaded) == set(example_tensors())


# ---- the same content gives the same bytes


def test_bytes_do_not_depend_on_the_order(archive, tmp_path):
    tensors = dict(reversed(list(example_tensors().items())))
    header = dict(reversed(list(HEADER.items())))
    header["config"] = dict(reversed(list(HEADER["config"].items())))
    for _ in range(5):
        write_archive(tmp_path / "again", tensors, header)
        assert (tmp_path / "again").read_bytes() == archive.read_bytes()


def test_bytes_are_the_same_in_other_processes(tmp_path):
    code = (
        "import sys, numpy as np; from refnaf.persistence import write_archive;"
        "write_archive(sys.argv[1], {str(k): np.full(3, k) for k in {5, 1, 99, 12}}, {str(k): 1 for k in 'zyxabc'})"
    )
    for seed in "12":
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / seed)], check=True, env=env)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_the_digest_is_the_documented_one(archive):
    tensors, header = read_archive(archive)
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f'["{name}", "{array.dtype.name}", {list(array.shape)}]\n'.encode())
        digest.update(array.tobytes())
    assert header["sha256"] == digest.hexdigest()


# ---- damage


def test_every_flipped_byte_is_noticed(archive):
    """One bit of every byte, and all of its bits."""
    data = archive.read_bytes()
    for position in range(len(data)):
        for flip in (1 << (position % 8), 0xFF):
            archive.write_bytes(data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :])
            refused(archive)


def test_every_truncation_and_extension_is_noticed(archive):
    data = archive.read_bytes()
    for length in range(len(data)):
        archive.write_bytes(data[:length])
        refused(archive)
    for extra in (b"\0", b"x" * 100):
        archive.write_bytes(data + extra)
        refused(archive, "damaged or truncated")
    archive.write_bytes(b"\0" + data)
    refused(archive)


def test_flipped_tensor_bytes_name_the_digest(archive):
    data = archive.read_bytes()
    archive.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    refused(archive, "tensors do not match their SHA-256")


def rewrite(path, change_tensors=lambda t: t, change_header=lambda h: h, key="refnaf"):
    """Write a well-formed safetensors file that somebody edited."""
    tensors, header = read_archive(path)
    header = change_header(header)
    text = header if isinstance(header, str) else json.dumps(header, sort_keys=True)
    path.write_bytes(safetensors.numpy.save(change_tensors(dict(tensors)), metadata={key: text}))


@pytest.mark.parametrize("change", [
    lambda t: {**t, "extra": np.zeros(1)},
    lambda t: {k: v for k, v in t.items() if k != "none"},
    lambda t: {("gain" if k == "bias" else k): v for k, v in t.items()},
    lambda t: {**t, "weight": t["weight"].reshape(4, 3)},
    lambda t: {**t, "weight": t["weight"].view(np.int32)},
    lambda t: {**t, "weight": t["weight"].astype(np.float64)},
    lambda t: {**t, "step": t["step"].reshape(1)},
    lambda t: {**t, "none": t["none"].reshape(3, 0)},
    lambda t: {**t, "weight": np.nextafter(t["weight"], np.float32(9))},
    lambda t: {},
])  # fmt: skip
def test_edited_tensors_are_noticed(archive, change):
    rewrite(archive, change)
    refused(archive, "tensors do not match")


@pytest.mark.parametrize("change", [
    lambda h: {**h, "model": "maf"},
    lambda h: {**h, "more": 1},
    lambda h: {k: v for k, v in h.items() if k != "kind"},
    lambda h: {k: v for k, v in h.items() if k != "header_sha256"},
    lambda h: {**h, "sha256": "0" * 64},
    lambda h: {**h, "header_sha256": None},
])  # fmt: skip
def test_edited_header_is_noticed(archive, change):
    rewrite(archive, change_header=change)
    refused(archive, "header does not match its SHA-256")


@pytest.mark.parametrize("header", [
    "", "{", "[]", "1", "null", '"x"', "{}", '{"format": true}', '{"format": "1"}', '{"format": 1.0}',
    '{"format": 0}', '{"format": -1}', '{"format": NaN}', "[" * 100_000, '{"format": ' + "9" * 5000 + "}",
    '{"format": 1, "x": "\\ud800"}',
])  # fmt: skip
def test_header_that_is_not_ours(archive, header):
    rewrite(archive, change_header=lambda h: header)
    refused(archive, "damaged")


def test_newer_format(archive):
    rewrite(archive, change_header=lambda h: {**h, "format": 2})
    refused(archive, "format 2", "reads up to 1", "upgrade", "pip install --upgrade refnaf")


# ---- foreign files


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"other": "{}"}])
def test_somebody_elses_safetensors(tmp_path, metadata):
    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(3)}, path, metadata=metadata)
    refused(path, "not one written by refnaf")


def outer(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def npy():
    file = io.BytesIO()
    np.save(file, np.zeros(200))
    return file.getvalue()


def npz():
    file = io.BytesIO()
    np.savez(file, x=np.zeros(200))
    return file.getvalue()


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x", "y" * 100)
    return file.getvalue()


META = {"refnaf": '{"format": 1}'}
FOREIGN = {
    "empty": (b"", "is empty"),
    "one byte": (b"{", "not a safetensors file"),
    "eight bytes": (b"\x02" + b"\0" * 7, "not a safetensors file"),
    "zeros": (b"\0" * 1000, "not a safetensors file"),
    "text": (b"a,b,c\n1,2,3\n" * 50, "not a safetensors file"),
    "json": (b'{"format": 1}' * 20, "not a safetensors file"),
    "png": (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "PNG"),
    "npy": (npy(), ".npy"),
    "npz": (npz(), "zip"),
    "zip": (zipped(), "zip"),
    "pickle": (pickle.dumps({"x": np.zeros(3)}, protocol=4), "pickle"),
    "pickle 0": (pickle.dumps(list(range(100)), protocol=0), "not a safetensors file"),
    "gzip": (b"\x1f\x8b\x08" + b"\0" * 100, "gzip"),
    "huge header length": ((2**63).to_bytes(8, "little") + b"{}", "not a safetensors file"),
    "long header length": ((10**7).to_bytes(8, "little") + b"{}", "truncated"),
    "no object": (outer(b"[1, 2]"), "not a safetensors file"),
    "no json": (outer(b"{nonsense}"), "not valid JSON"),
    "no utf-8": (outer(b'{"\xff": 1}'), "not valid JSON"),
    "utf-16": (outer('{"a": 1}'.encode("utf-16-le")), "not valid JSON"),
    "deep": (outer(b'{"a":' * 50_000), "not valid JSON"),
    "empty object": (outer({}), "not one written by refnaf"),
    "metadata is a list": (outer({"__metadata__": []}), "not one written by refnaf"),
    "metadata is a number": (outer({"__metadata__": {"refnaf": 1}}), "not one written by refnaf"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_files(tmp_path, case):
    data, word = FOREIGN[case]
    path = tmp_path / "file"
    path.write_bytes(data)
    refused(path, word)


def with_digest(info, body=b""):
    """A file whose refnaf header is in order, around tensors that are not."""
    header = {"format": 1, "sha256": "0" * 64}
    header["header_sha256"] = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()
    return outer({"__metadata__": {"refnaf": json.dumps(header)}, **info}, body)


@pytest.mark.parametrize(("info", "body"), [
    ({"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, b"\0" * 4),
    ({"x": {"dtype": "Q7", "shape": [2], "data_offsets": [0, 4]}}, b"\0" * 4),
    ({"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 4]}}, b"\0" * 4),
    ({"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, b"\0" * 4),
    ({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}}, b"\0" * 4),
    ({"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"\0" * 4),
    ({"x": {"dtype": "F32", "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}}, b""),
    ({"x": {"dtype": "F32", "shape": [0, 2**63 + 5], "data_offsets": [0, 0]}}, b""),
    ({"x": {"dtype": "F32", "shape": [0, 2**61], "data_offsets": [0, 0]}}, b""),
    ({"x": {"dtype": "F32", "shape": [1] * 70, "data_offsets": [0, 4]}}, b"\0" * 4),
    ({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
      "y": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]}}, b"\0" * 6),
    ({"x": 3}, b""),
    ({"x": {"dtype": "F32"}}, b""),
    ({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 4),
    ({}, b""),
])  # fmt: skip
def test_impossible_tensors(tmp_path, info, body):
    path = tmp_path / "file"
    path.write_bytes(with_digest(info, body))
    refused(path, "damaged")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_archive(tmp_path / "missing")
    with pytest.raises(OSError, match=r".") as caught:
        read_archive(tmp_path)
    assert not isinstance(caught.value, FileFormatError)


def test_a_file_name_with_a_line_break_gives_one_line(tmp_path):
    path = tmp_path / "a\nb"
    path.write_bytes(b"nothing")
    with pytest.raises(FileFormatError) as caught:
        read_archive(path)
    assert "\n" not in str(caught.value)


# ---- what cannot be written is refused, and nothing is lost


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
