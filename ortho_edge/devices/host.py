"""Facts about the machine that this runs on, read from the system."""

import os
import platform
from pathlib import Path

from ortho_edge.devices.profile import Core, Hardware, NumberFact, TextFact

CPUINFO = Path("/proc/cpuinfo")
MEMINFO = Path("/proc/meminfo")


def _entries(path: Path) -> dict[str, str]:
    """The first value of each `key: value` line; nothing where there is no such file."""
    entries: dict[str, str] = {}
    if path.is_file():
        for line in path.read_text("utf-8", errors="replace").splitlines():
            key, found, value = line.partition(":")
            if found:
                entries.setdefault(key.strip(), value.strip())
    return entries


def host_hardware(cpuinfo: Path = CPUINFO, meminfo: Path = MEMINFO) -> Hardware:
    """What the system says about its processor and memory.

    Peak figures stay unknown: the system states neither the real clock nor the vector units.
    """
    cpu, memory = _entries(cpuinfo), _entries(meminfo)
    model = cpu.get("model name") or cpu.get("Hardware") or platform.machine()
    kilobytes = memory.get("MemTotal", "").split()
    if kilobytes:
        ram, source = int(kilobytes[0]) * 1024 / 1e9, "MemTotal of /proc/meminfo"
    else:
        ram, source = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, "sysconf"
    return Hardware(
        soc=TextFact(value=model, source="/proc/cpuinfo" if cpu else "platform.machine()"),
        runs_on=model,
        cores=(Core(name=model, count=os.cpu_count() or 1, source="operating system"),),
        ram_gb=NumberFact(value=round(ram, 2), source=source),
    )
