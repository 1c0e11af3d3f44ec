"""Files are whole or as they were."""
import json

import pytest

from lipfw.files import append_jsonl, read_jsonl, write_atomic, write_json, write_jsonl, write_text


@pytest.mark.parametrize("old", [None, "old"])
def test_a_failing_writer_changes_nothing(tmp_path, old):
    path = tmp_path / "x.txt"
    if old:
        path.write_text(old)

    def write(p):
        p.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, write)
    assert [p.name for p in tmp_path.iterdir()] == (["x.txt"] if old else [])
    assert not old or path.read_text() == old


def test_the_new_content_is_complete_before_it_has_the_name(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def write(p):
        assert p.suffix == ".txt" and p.parent == tmp_path and p.name.startswith(".")
        p.write_text("new")
        assert path.read_text() == "old"

    write_atomic(path, write)
    assert path.read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_a_writer_that_writes_nothing_fails_and_keeps_the_old_content(tmp_path):
    (tmp_path / "x").write_text("old")
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "x", lambda p: None)
    assert (tmp_path / "x").read_text() == "old"


def test_text_is_utf_8(tmp_path):
    write_text(tmp_path / "x", "σ\n")
    assert (tmp_path / "x").read_bytes() == "σ\n".encode()


@pytest.mark.parametrize("write", [lambda p, v: write_json(p, v), lambda p, v: write_jsonl(p, [v]),
                                   lambda p, v: append_jsonl(p, [v])])
def test_json_refuses_nan_and_leaves_the_file(tmp_path, write):
    path = tmp_path / "x.json"
    write(path, {"a": 1.5})
    assert json.loads(path.read_text()) == {"a": 1.5}
    with pytest.raises(ValueError):
        write(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1.5} and len(list(tmp_path.iterdir())) == 1


def test_json_lines_append_and_replace(tmp_path):
    path = tmp_path / "x.jsonl"
    assert read_jsonl(path) == []
    append_jsonl(path, [{"a": "line\nbreak"}])
    append_jsonl(path, [{"b": 2}, {"c": None}])
    assert read_jsonl(path) == [{"a": "line\nbreak"}, {"b": 2}, {"c": None}]
    write_jsonl(path, [{"d": 4}])
    assert read_jsonl(path) == [{"d": 4}]


def test_a_line_without_its_end_is_dropped(tmp_path):
    path = tmp_path / "x.jsonl"
    records = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
    write_jsonl(path, records)
    whole = path.read_text()
    second = whole.index("\n") + 1
    for end in range(len(whole)):
        path.write_text(whole[:end])
        assert read_jsonl(path) == records[:end >= second]
