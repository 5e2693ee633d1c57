"""Files and folders are replaced, links followed, pipes written into; nothing else is touched."""

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ortho_edge import atomic
from ortho_edge.atomic import atomic_folder, write_atomically
from ortho_edge.cli import UserError
from ortho_edge.destinations import behind_links, opened_stream


def kinds(folder: Path) -> dict[str, str]:
    """Everything in a folder, hidden things too, and of which kind it is."""
    return {one.name: stat.filemode(one.lstat().st_mode)[0] for one in folder.iterdir()}


def make_folder(path: Path) -> None:
    with atomic_folder(path) as folder:
        (folder / "new").write_text("new")


def test_a_pipe_is_written_into_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    content = b"0123456789" * 20_001  # more than a pipe holds
    for _ in range(1000):
        try:
            write_atomically(pipe, content)
            break
        except UserError:  # the reader has not opened it yet
            reader.join(0.01)
    reader.join(10)
    assert received == [content]
    assert kinds(tmp_path) == {"pipe": "p"}


def test_a_pipe_without_a_reader_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="a pipe that nothing reads from"):
        write_atomically(tmp_path / "pipe", "text")
    assert kinds(tmp_path) == {"pipe": "p"}


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("socket")
        for write in (lambda path: write_atomically(path, "text"), make_folder):
            with pytest.raises(UserError, match="socket"):
                write(tmp_path / "socket")
        assert kinds(tmp_path) == {"socket": "s"}


def test_a_terminal_is_written_into(tmp_path: Path) -> None:
    master, slave = os.openpty()
    link = tmp_path / "terminal"
    link.symlink_to(os.ttyname(slave))
    write_atomically(link, "text\n")
    assert os.read(master, 100) == b"text\r\n"
    assert kinds(tmp_path) == {"terminal": "l"}
    os.close(slave)
    os.close(master)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_standard_output_is_written_into(
    repository: Path, tmp_path: Path, name: str, kind: str
) -> None:
    program = (
        "import sys; from pathlib import Path; from ortho_edge.atomic import write_atomically\n"
        f"print('before'); write_atomically(Path({name!r}), 'text\\n'); print('after')"
    )
    command = [sys.executable, "-c", program]
    if kind == "pipe":
        found = subprocess.run(command, cwd=repository, check=True, stdout=subprocess.PIPE).stdout
    else:
        with (tmp_path / "out").open("wb") as file:
            subprocess.run(command, cwd=repository, check=True, stdout=file)
        found = (tmp_path / "out").read_bytes()
    assert found == b"before\ntext\nafter\n"


@pytest.mark.parametrize("there", [True, False])
def test_the_target_of_a_link_is_written(tmp_path: Path, there: bool) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("middle")
    (tmp_path / "middle").symlink_to("far/file")
    if there:
        (tmp_path / "far" / "file").write_text("old")
    write_atomically(tmp_path / "link", "new")
    assert kinds(tmp_path) == {"far": "d", "link": "l", "middle": "l"}
    assert kinds(tmp_path / "far") == {"file": "-"}
    assert (tmp_path / "link").read_text() == "new"


@pytest.mark.parametrize("there", [True, False])
def test_the_folder_behind_a_link_is_replaced(tmp_path: Path, there: bool) -> None:
    (tmp_path / "link").symlink_to("far/folder")
    if there:
        (tmp_path / "far" / "folder").mkdir(parents=True)
        (tmp_path / "far" / "folder" / "old").write_text("old")
    make_folder(tmp_path / "link")
    assert kinds(tmp_path) == {"far": "d", "link": "l"}
    assert kinds(tmp_path / "far") == {"folder": "d"}
    assert kinds(tmp_path / "link") == {"new": "-"}


def test_what_a_killed_writer_of_a_link_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    left = tmp_path / f".file.abcd1234{atomic.HOLDER_SUFFIX}"
    left.mkdir()
    write_atomically(tmp_path / "link", "new")
    assert kinds(tmp_path) == {"file": "-", "link": "l"}


def test_a_circle_of_links_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links") as caught:
        write_atomically(tmp_path / "a", "new")
    assert caught.value.errno == errno.ELOOP
    assert kinds(tmp_path) == {"a": "l", "b": "l"}


def test_a_folder_never_replaces_a_file_nor_a_file_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="file is not a folder"):
        make_folder(tmp_path / "file")
    with pytest.raises(UserError, match="folder: it is a folder"):
        write_atomically(tmp_path / "folder", "new")
    assert kinds(tmp_path) == {"file": "-", "folder": "d"}
    assert (tmp_path / "file").read_text() == "old"


def test_a_file_on_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    for write in (lambda path: write_atomically(path, "new"), make_folder):
        with pytest.raises(UserError, match="/file is not a folder"):
            write(tmp_path / "file" / "deep" / "name")
    assert kinds(tmp_path) == {"file": "-"}


def test_an_error_names_the_final_path_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/file'"):
        write_atomically(tmp_path / "file", "new")
    assert kinds(tmp_path) == {"file": "-"}
    assert (tmp_path / "file").read_text() == "old"


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match="'/nowhere/else'"),
        atomic_folder(tmp_path / "folder"),
    ):
        Path("/nowhere/else").read_text()


def test_files_and_folders_are_no_streams(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in (".", "file", "missing", "file/below"):
        assert opened_stream(tmp_path / name) is None
    assert behind_links(tmp_path / "a" / ".." / "file") == tmp_path / "file"


def test_a_name_that_is_no_text_is_written_as_an_escape(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", "caf\udce9 caf\u00e9")
    assert (tmp_path / "file").read_bytes() == b"caf\\udce9 caf\xc3\xa9"
