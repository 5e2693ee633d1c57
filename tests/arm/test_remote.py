"""Devices over adb and ssh; stand-ins get the real commands and run them in a folder."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ortho_edge.cli import UserError
from ortho_export.arm.machines import MachineError
from ortho_export.arm.remote import connected, is_remote
from ortho_export.arm.toolchain import MissingToolError
from tests.arm.device import Device, make_device

WAYS = ["adb", "adb:PHONE1", "ssh:user@board"]
HOSTILE = [
    "; rm -rf *",
    "$(touch pwned)",
    "`touch pwned`",
    "a\nb\n",
    "'; touch pwned; '",
    '"$HOME" \\',
    "-rf",
    "& touch pwned &",
    "> pwned",
    "*",
    "",
]


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    return make_device(tmp_path / "device", monkeypatch)


@pytest.mark.parametrize("on", WAYS)
def test_the_folder_there_is_fresh_and_is_removed(on: str, device: Device) -> None:
    with connected(on) as one, connected(on) as other:
        assert one.folder != other.folder
        assert len(device.left()) == 2
    assert device.left() == []


@pytest.mark.parametrize("on", WAYS[1:])
@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_argument_arrives_as_it_is_and_does_nothing(
    text: str, on: str, device: Device
) -> None:
    with connected(on) as machine:
        before = device.files()
        assert machine.run(["printf", "%s|", "x", text]) == f"x|{text}|"
        assert device.files() == before


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    arguments=st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1
    )
)
def test_any_arguments_arrive_unchanged(arguments: list[str], device: Device) -> None:
    with connected("ssh:board") as machine:
        said = machine.run(["printf", "%s\\0", *arguments])
    assert said == "".join(f"{one}\0" for one in arguments)


@pytest.mark.parametrize("on", WAYS[1:])
@pytest.mark.parametrize("name", [one.replace("/", "") for one in HOSTILE if one])
def test_a_file_of_a_hostile_name_and_any_content_arrives_whole(
    name: str, on: str, device: Device, tmp_path: Path
) -> None:
    file = tmp_path / name
    content = bytes(range(256)) * 3 + b"\northo-edge-status 7\n$(touch pwned)\r\n\n"
    file.write_bytes(content)
    with connected(on) as machine:
        before = device.files()
        there = machine.put(file, "program.pte")
        assert machine.get("program.pte") == content
        made = {str(Path(there).relative_to(device.root))}
        assert device.files() - before == made
        assert not any("pwned" in one for one in device.files())


def test_a_name_there_is_never_somebody_elses(device: Device, tmp_path: Path) -> None:
    with connected("ssh:board") as machine:
        for name in (*HOSTILE, "../up", "a/b", ".hidden", "a b"):
            with pytest.raises(ValueError, match="is not called"):
                machine.put(tmp_path, name)


def test_what_may_be_executed_here_may_be_there(device: Device, tmp_path: Path) -> None:
    script, text = tmp_path / "script", tmp_path / "text"
    for file in (script, text):
        file.write_text("#!/bin/sh\necho works\n")
    script.chmod(0o755)
    with connected("ssh:board") as machine:
        assert machine.run([machine.put(script, "script")]) == "works\n"
        with pytest.raises(MachineError, match=r"text ended with status 126 on board over ssh: "):
            machine.run([machine.put(text, "text")])


def test_lines_are_told_while_the_command_still_runs(device: Device) -> None:
    seen = []
    with connected("adb") as machine:
        script = f"echo one; sleep 0.5; test -e {device.root}/heard && echo two"

        def heard(line: bytes) -> None:
            seen.append(line)
            (device.root / "heard").touch()

        assert machine.run(["sh", "-c", script], heard) == "one\ntwo\n"
    assert seen[:2] == [b"one\n", b"two\n"]


@pytest.mark.parametrize("serial", ["-a", "a b", "a;b", "$(id)", "a\n", "../a", "a\0"])
def test_a_serial_number_that_is_none_never_reaches_adb(serial: str, device: Device) -> None:
    with pytest.raises(UserError, match=r"--on adb:SERIAL takes letters, digits and "):
        connected(f"adb:{serial}").__enter__()
    assert device.commands() == []


@pytest.mark.parametrize(
    "target",
    ["-oProxyCommand=touch pwned", "", "a b", "a;b", "$(id)", "a\n", "-a", "me@-a", "@a", "a@b@c"],
)
def test_a_host_that_is_no_host_never_reaches_ssh(target: str, device: Device) -> None:
    with pytest.raises(UserError, match=r"--on ssh:HOST or ssh:USER@HOST, not "):
        connected(f"ssh:{target}").__enter__()
    assert device.commands() == []


def test_ssh_gets_one_line_and_never_asks(device: Device) -> None:
    with connected("ssh:user@board"):
        pass
    for name, *arguments in device.commands():
        assert name == "ssh"
        assert arguments[-3:-1] == ["--", "user@board"]
        assert "BatchMode=yes" in arguments
        words = shlex.split(arguments[-1])
        assert words[:2] == ["sh", "-c"]
        assert len(words) == 3


@pytest.mark.parametrize(
    ("listed", "on", "message"),
    [
        ("", "adb", "no device is connected over adb; connect it"),
        ("A\tunauthorized\n", "adb", "A does not trust this machine; allow USB debugging"),
        ("A\toffline\n", "adb", "A is not ready, adb says 'offline'"),
        ("A\tdevice\nB\tdevice\n", "adb", "several devices are connected: A, B; choose by"),
        ("A\tdevice\n", "adb:B", "no device 'B' is connected over adb; connected: A"),
        ("A\tdevice\n", "adb:", "no device '' is connected"),
        ("-A\tdevice\n", "adb", "adb lists '-A', which is no serial number"),
        ("A\tdevice\n", "adb:; rm -rf", "--on adb:SERIAL takes letters, .* not '; rm -rf'"),
    ],
)
def test_a_device_that_is_not_ready_is_one_line(
    listed: str, on: str, message: str, device: Device
) -> None:
    (device.root / "devices").write_text(f"List of devices attached\n{listed}\n")
    with pytest.raises(UserError, match=message):
        connected(on).__enter__()


@pytest.mark.parametrize(("on", "name"), [("adb", "adb"), ("ssh:board", "ssh")])
def test_a_missing_program_names_the_line_that_installs_it(
    on: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingToolError, match=f"{name} is not installed; .*apt-get install"):
        connected(on).__enter__()


@pytest.mark.parametrize("answer", ["x86_64", "armv7l", "", "$(touch pwned)"])
def test_another_architecture_is_refused_before_anything_is_made(
    answer: str, device: Device
) -> None:
    device.program("uname", f"#!/bin/sh\nprintf '%s\\n' '{answer}'\n")
    with pytest.raises(UserError, match="board over ssh is no 64-bit Arm device; it calls itself"):
        connected("ssh:board").__enter__()
    assert device.left() == []


@pytest.mark.parametrize("answer", ["/", "/home", "/tmp/../home/ortho-edge.12345678", "no", ""])
def test_a_folder_that_is_none_of_ours_is_never_removed(answer: str, device: Device) -> None:
    device.program("mktemp", f"#!/bin/sh\necho '{answer}'\n")
    with pytest.raises(MachineError, match="made no folder but says"):
        connected("ssh:board").__enter__()
    assert not any("rm " in one[-1] for one in device.commands())


def test_a_connection_that_drops_is_one_line_and_names_what_is_left(
    device: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with connected("ssh:board") as machine:
        monkeypatch.setenv("STANDIN_DROP", " ")
        with pytest.raises(MachineError, match=r"to board over ssh failed: Connection reset"):
            machine.run(["echo", "half"])
    assert f"{machine.folder} is left on board over ssh" in caplog.text


@pytest.mark.parametrize("on", WAYS[1:])
def test_a_full_disk_is_one_line(on: str, device: Device, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(10_000))
    with connected(on) as machine:
        # What is written to this device never fits.
        (Path(machine.folder) / "full").symlink_to("/dev/full")
        with pytest.raises(MachineError, match="No space left on device"):
            machine.put(file, "full")
    assert device.left() == []


def test_a_crash_there_is_named_with_its_status(device: Device) -> None:
    with (
        pytest.raises(MachineError, match=r"sh ended with status 139 on PHONE1 over adb"),
        connected("adb") as machine,
    ):
        machine.run(["sh", "-c", "kill -SEGV $$"])
    assert device.left() == []


def test_an_interrupt_removes_the_folder_there(device: Device) -> None:
    code = """
from ortho_export.arm.remote import connected
with connected("ssh:board") as machine:
    machine.run(["sleep", "60"])
"""
    paths = {"PYTHONPATH": ":".join(one for one in sys.path if one)}

    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | paths,
        stderr=subprocess.PIPE,
        # What runs in the background of a shell ignores Ctrl-C, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    give_up = time.monotonic() + 120
    while not any("sleep" in one[-1] for one in device.commands()):
        assert time.monotonic() < give_up
        assert child.poll() is None
        time.sleep(0.05)
    assert len(device.left()) == 1
    child.send_signal(signal.SIGINT)
    _, complaint = child.communicate(timeout=120)
    assert b"KeyboardInterrupt" in complaint
    assert device.left() == []


def test_only_adb_and_ssh_name_devices() -> None:
    assert all(map(is_remote, WAYS))
    assert not any(map(is_remote, ["cortex-a76", "max", "adbx", ""]))
