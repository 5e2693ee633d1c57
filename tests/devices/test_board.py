import pytest

from ortho_edge.cli import UserError
from ortho_edge.devices.board import LONGEST_TEXT, Board, parse_board, parse_condition, plain
from tests.arm.device import CPUINFO, PROPERTIES

CONDITION = """\
/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq 1800000
/sys/devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq 2910000
/sys/devices/system/cpu/cpu1/cpufreq/scaling_max_freq 2500000
/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor walt
/sys/class/thermal/thermal_zone0/temp 41500
/sys/class/thermal/thermal_zone1/temp -40000
/sys/class/thermal/thermal_zone2/temp 999000
"""
EMPTY = {"cpuinfo": CPUINFO, "meminfo": "", "properties": "", "tree_model": "", "kernel": ""}


def board(condition: str = CONDITION, **said: str) -> Board:
    return parse_board(**(EMPTY | said), condition=parse_condition(condition))


def test_a_phone_is_named_by_its_properties() -> None:
    phone = board(properties=PROPERTIES, kernel="Linux 6.1\n", meminfo="MemTotal:  7812500 kB\n")
    assert phone.model == "Example Phone 7 $(touch pwned)"
    assert phone.system == "Android 14, Linux 6.1"
    assert phone.soc.value == 'Maker Chip "9"; rm -rf /'
    assert phone.ram_gb == 8.0
    assert phone.profile_name(None) == "example-phone-7-touch-pwned"


def test_a_board_is_named_by_its_device_tree() -> None:
    pi = board(tree_model="Raspberry Pi 5 Model B Rev 1.0\0", kernel="Linux 6.6")
    assert pi.profile_name(None) == "raspberry-pi-5-model-b-rev-1-0"
    assert pi.system == "Linux 6.6"
    assert pi.soc.source == "/proc/device-tree/model"


def test_cores_are_told_apart_by_part_and_clock() -> None:
    hardware = board().hardware(1)
    assert [(core.name, core.count, core.clock_ghz) for core in hardware.cores] == [
        ("Cortex-A53 at 1.8 GHz", 1, 1.8),
        ("Cortex-X3 at 2.91 GHz", 1, 2.91),
    ]
    assert hardware.core.name == "Cortex-X3 at 2.91 GHz"
    assert board().features == {0: ("asimd",), 1: ("asimd", "asimddp", "i8mm")}


@pytest.mark.parametrize(
    ("condition", "core"),
    [
        (CONDITION, 1),
        ("/cpu0/cpufreq/cpuinfo_max_freq 2000000", 0),
        ("/cpu0/cpufreq/cpuinfo_max_freq 2\n/cpu1/cpufreq/cpuinfo_max_freq 2", 1),
        ("/cpu7/cpufreq/cpuinfo_max_freq 9000000", 1),
        ("", 1),
    ],
)
def test_the_fastest_core_is_the_one_with_the_highest_clock(condition: str, core: int) -> None:
    assert board(condition).chosen(None) == core


def test_another_core_can_be_chosen_and_none_that_is_not_there() -> None:
    assert board().chosen(0) == 0
    with pytest.raises(UserError, match=r"no core 2; it has: 0 \(Cortex-A53\), 1 \(Cortex-X3\)"):
        board().chosen(2)


def test_cores_of_other_makers_are_named_by_their_numbers() -> None:
    text = "processor : 0\nCPU implementer : 0x51\nCPU part : 0x001\n\nprocessor : 1\n"
    assert board(cpuinfo=text).cores == {0: "core 0x1 of maker 0x51", 1: "core 0x0 of maker 0x0"}


def test_senseless_sensors_do_not_count() -> None:
    assert parse_condition(CONDITION).celsius == 41.5
    assert parse_condition("/temp 999000\n/temp x\n").celsius is None
    assert parse_condition(CONDITION).describe(1) == "clock at most 2.5 GHz, hottest sensor 42 C"
    assert parse_condition("").describe(1) == "clock at most unknown, hottest sensor unknown"


@pytest.mark.parametrize("text", ["", "model name : an x86 CPU\n", "processor : x\n", "\0\xff"])
def test_a_system_that_names_no_core_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="names no core"):
        board(cpuinfo=text)


def test_hostile_facts_become_one_short_line() -> None:
    assert plain("a\nb\x1b[31m\t\0c\u202e") == "a b [31m c"
    assert len(plain("x" * 1000)) == LONGEST_TEXT
    assert board(properties="[ro.product.model]: [\x1b]0;x\x07]\n").profile_name(None) == "0-x"
    nonsense = board("/cpu1/cpufreq/cpuinfo_max_freq -1\n/cpu0/cpufreq/cpuinfo_max_freq 1e9\n")
    assert nonsense.hardware(1).core.clock_ghz is None


@pytest.mark.parametrize("name", ["", "host", "../x", "a b", "-x", "a.toml", "a\n"])
def test_a_name_that_a_profile_cannot_have_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="--name must be letters, digits"):
        board().profile_name(name)


def test_a_model_without_a_letter_needs_a_name() -> None:
    assert board().profile_name(None) == "unknown-arm-device"
    with pytest.raises(UserError, match="--name must be"):
        board(tree_model="!!!").profile_name(None)
