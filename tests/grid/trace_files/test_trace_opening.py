"""Files that cannot be opened or are not what their name says, whatever their format."""

import gzip
import os
import threading
from pathlib import Path

import pytest
from trace_writers import FORMATS, HEADER, moments, problems, rows, table, written

from gridsweep.errors import TraceError
from gridsweep.grid.trace_files import read_trace


@pytest.mark.parametrize("format", FORMATS)
def test_a_missing_file(tmp_path, format):
    assert "there is no such file" in problems(tmp_path / f"absent.{format}")[0]
    (tmp_path / f"file.{format}").write_text("")
    assert "there is no such file" in problems(tmp_path / f"file.{format}" / f"grid.{format}")[0]


@pytest.mark.parametrize("format", FORMATS)
def test_a_folder(tmp_path, format):
    (tmp_path / f"grid.{format}").mkdir()
    assert "is a folder" in problems(tmp_path / f"grid.{format}")[0]


@pytest.mark.parametrize("format", FORMATS)
def test_a_pipe_does_not_block(tmp_path, format):
    path = tmp_path / f"grid.{format}"
    os.mkfifo(path)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.extend(problems(path)), daemon=True)
    reader.start()
    reader.join(5)
    assert "is not a regular file" in found[0]


@pytest.mark.parametrize("format", FORMATS)
def test_a_link_to_itself(tmp_path, format):
    path = tmp_path / f"grid.{format}"
    path.symlink_to(path)
    assert "cannot be read (Too many levels of symbolic links)" in problems(path)[0]


@pytest.mark.parametrize("format", FORMATS)
def test_a_link_to_a_file_is_read(tmp_path, write, format):
    write(written(format, [1, 2]), "elsewhere")
    (tmp_path / f"grid.{format}").symlink_to(tmp_path / "elsewhere")
    assert read_trace(tmp_path / f"grid.{format}").values.tolist() == [1, 2]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(write, format):
    path = write(written(format, [1, 2]), f"grid.{format}")
    path.chmod(0)
    assert "cannot be read (Permission denied)" in problems(path)[0]


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux")
def test_a_file_whose_reading_fails(tmp_path):
    (tmp_path / "grid.csv").symlink_to("/proc/self/mem")  # opens, and there is nothing at address 0
    assert "cannot be read (Input/output error)" in problems(tmp_path / "grid.csv")[0]


@pytest.mark.parametrize("format", FORMATS)
def test_a_huge_file_is_refused_unread(write, format):
    path = write("", f"grid.{format}")
    os.truncate(path, 200_000_001)  # sparse: takes no room on the disk
    assert "has 200 MB, and a trace may have 200 MB" in problems(path)[0]


@pytest.mark.parametrize("name", ["x" * 300 + ".csv", "gr\0id.csv"])
def test_a_name_no_file_can_have(tmp_path, name):
    with pytest.raises(TraceError, match=r"File name too long|is no path"):
        read_trace(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("grid.txt", "ends in no format of a trace; give the path of a .csv"),
        ("grid", "ends in no format of a trace"),
        ("grid.cvs", "did you mean .csv?"),
        ("grid.parqet", "did you mean .parquet?"),
        ("grid.csv.gz", "is compressed; unpack it"),
        ("grid.jsonl.zst", "is compressed; unpack it"),
    ],
)
def test_another_ending(write, name, what):
    assert what in problems(write(HEADER + rows(1, 2), name))[0]


@pytest.mark.parametrize("name", ["GRID.CSV", "grid.Csv"])
def test_the_case_of_an_ending_does_not_matter(write, name):
    assert len(read_trace(write(HEADER + rows(1, 2), name))) == 2


@pytest.mark.parametrize("name", ["grid.csv", "grid.jsonl"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (table(moments(2), [1.0, 2.0]), "is a Parquet file; let its name end in .parquet"),
        (gzip.compress(HEADER.encode(), mtime=0), "is compressed by gzip"),
        (b"PK\x03\x04rest", "is a zip archive or a workbook"),
        (HEADER.encode("utf-16"), "is UTF-16; save the file as UTF-8 text"),
    ],
)
def test_something_else_than_the_name_says(write, name, content, what):
    assert what in problems(write(content, name))[0]
