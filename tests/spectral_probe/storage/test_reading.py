"""Files of ours that parse, but lack a key, have another type, or would never end."""

import io
import os

import numpy as np
import pytest

from spectral_probe.storage.reading import parse_json, parse_yaml, read_json, read_npz, read_yaml, refuse_special

SHAPE = {"format": int, "name?": (str, None), "sizes": [float], "parts?": {str: {"n": int}}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("null", "it must be a mapping; it is None"),
        ("[1]", r"it must be a mapping; it is \[1\]"),
        ('{"sizes": []}', "format is missing"),
        ('{"format": "1", "sizes": []}', "format must be a whole number; it is '1'"),
        ('{"format": true, "sizes": []}', "format must be a whole number; it is True"),
        ('{"format": 1.5, "sizes": []}', "format must be a whole number; it is 1.5"),
        ('{"format": 1, "sizes": [1, null]}', r"sizes\[1\] must be a number; it is None"),
        ('{"format": 1, "sizes": {}}', "sizes must be a list"),
        ('{"format": 1, "sizes": [], "name": 3}', "name must be text or null; it is 3"),
        ('{"format": 1, "sizes": [], "parts": {"a": {}}}', "parts.a.n is missing"),
        ("[" * 100_000, "nested too deep"),
        ("{", "Expecting"),
    ],
)
def test_a_damaged_json_file_is_named_by_key_and_value(text, message, tmp_path):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_json(tmp_path / "run.json", SHAPE)


def test_what_may_be_missing_may_be_missing_and_other_keys_are_left_alone():
    assert parse_json('{"format": 1, "sizes": [1, 2.5], "name": null, "other": 7}', SHAPE)["other"] == 7
    long = parse_json('{"format": 1, "sizes": []}', SHAPE)
    assert "name" not in long


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(ValueError, match="it is 'xxx") as caught:
        parse_json(f'{{"format": "{"x" * 10_000}", "sizes": []}}', SHAPE)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nseed: 2", "the key 'seed' is given twice"),
        ("training: {k: 1, k: 1}", "the key 'k' is given twice"),
        ("a: &a [*a]", "none inside itself"),
        ("a: &a [1]\nb: [" + ", ".join(["*a"] * 21) + "]", "at most 20 aliases"),
        ("a: [", "expected"),
    ],
)
def test_yaml_that_would_mislead_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_yaml(text)


def test_yaml_keeps_its_aliases_and_merged_keys():
    content = parse_yaml("base: &base {k: 1, n: 2}\nfirst: {<<: *base, k: 3}\nsecond: *base")
    assert content["first"] == {"k": 3, "n": 2}
    assert content["second"] == content["base"]


def test_an_archive_without_an_array_or_with_another_kind_is_refused(tmp_path):
    path = tmp_path / "graph.npz"
    np.savez(path, rows=np.arange(3), names=np.array(["a", "b"]))
    content = read_npz(path, {"rows": ("iu", 1), "names?": ("U", 1), "absent?": ("f", 1)})
    assert set(content) == {"rows", "names"}
    for shape, message in (
        ({"columns": ("iu", 1)}, "columns"),
        ({"rows": ("f", 1)}, r"rows must be numbers in 1 dimensions; it is int64 of shape \(3,\)"),
        ({"names": ("iu", 1)}, "names must be whole numbers"),
        ({"rows": ("iu", 2)}, "in 2 dimensions"),
    ):
        with pytest.raises(ValueError, match=message):
            read_npz(path, shape)


def test_an_archive_with_any_flipped_byte_is_the_same_or_an_error(tmp_path):
    rows = np.arange(20)
    stored = io.BytesIO()
    np.savez_compressed(stored, rows=rows)
    whole = stored.getvalue()
    path = tmp_path / "graph.npz"
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 0x10]) + whole[index + 1 :])
        try:
            content = read_npz(path, {"rows": ("iu", 1)})
        except (OSError, ValueError):
            continue
        assert np.array_equal(content["rows"], rows), index


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for read in (refuse_special, read_json, read_yaml, lambda path: read_npz(path, {})):
        with pytest.raises(ValueError, match="a pipe or a device"):
            read(tmp_path / "pipe")
    with pytest.raises(ValueError, match="a pipe or a device"):
        read_json("/dev/zero")
    refuse_special(tmp_path / "absent")
