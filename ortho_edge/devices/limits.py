"""Limits named with their device: `pixel8@8ms` of latency, `pixel8@12MB` of memory."""

import re
from dataclasses import dataclass, replace

from ortho_edge.cli import UserError
from ortho_edge.components import ComponentSpace
from ortho_edge.costs import CostModel
from ortho_edge.devices.catalogue import load_profile
from ortho_edge.devices.costs import latency_costs, memory_costs
from ortho_edge.devices.profile import Budget, DeviceProfile

FIELDS = {"ms": "latency_ms", "MB": "memory_mb"}


@dataclass(frozen=True, kw_only=True)
class DeviceLimit:
    """One limit on one device, for the audio length of its default budget.

    Attributes:
        unit: `ms` of latency or `MB` of memory.
    """

    profile: DeviceProfile
    value: float
    unit: str

    def costs(self, space: ComponentSpace) -> CostModel:
        """What is limited."""
        return device_costs(self.profile, space, self.unit)

    def within(self, budget: Budget) -> Budget:
        """A budget with this limit in place of its own."""
        return replace(budget, **{FIELDS[self.unit]: self.value})


def device_costs(profile: DeviceProfile, space: ComponentSpace, unit: str) -> CostModel:
    """Latency (`ms`) or memory (`MB`) for the audio length of the profile's default budget."""
    price = latency_costs if unit == "ms" else memory_costs
    return price(profile, space, profile.budget.audio_seconds)


def device_limit(text: str) -> DeviceLimit:
    """The limit that `DEVICE@VALUEms` or `DEVICE@VALUEMB` names.

    Raises:
        UserError: It is written differently, or the device is unknown.
    """
    found = re.fullmatch(r"(?P<device>.+)@(?P<value>\d+(\.\d+)?)(?P<unit>ms|MB)", text)
    if found is None or not float(found["value"]) > 0:
        raise UserError(
            f"{text!r} is no limit of a device; "
            "write DEVICE@8ms for latency or DEVICE@12MB for memory"
        )
    return DeviceLimit(
        profile=load_profile(found["device"]), value=float(found["value"]), unit=found["unit"]
    )
