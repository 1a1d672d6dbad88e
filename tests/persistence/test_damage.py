"""Damaged, foreign and newer files: one clear line, never a wrong model."""

import hashlib
import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from refnaf.persistence import FileFormatError, read_archive
from tests.persistence.archives import refused


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
