"""The command-line options that set a budget, the same for every command that takes one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ortho_edge.options import AudioSeconds, Limit

if TYPE_CHECKING:
    from ortho_edge.devices.profile import Budget, DeviceProfile


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """Limits; what is not named is the device's default, `inf` lifts a limit."""

    latency_ms: Limit | None = None
    """Budget: latency of an utterance. This and the other limits default to those of the device."""
    rtf: Limit | None = None
    """Budget: latency as a share of the audio's length (real-time factor)."""
    audio_seconds: AudioSeconds | None = None
    """Length of the audio that latency, memory and FLOPs are for."""
    memory_mb: Limit | None = None
    """Budget: peak memory."""
    size_mb: Limit | None = None
    """Budget: size of each file."""
    params: Limit | None = None
    """Budget: parameters."""
    flops: Limit | None = None
    """Budget: FLOPs of an utterance, a multiply-accumulate counted as two."""

    def budget(self, profile: "DeviceProfile") -> "Budget":
        """The budget of a device under these options.

        Raises:
            UserError: A limit is not above 0.
        """
        from ortho_edge.selector import budget_for

        return budget_for(
            profile,
            latency_ms=self.latency_ms,
            rtf=self.rtf,
            audio_seconds=self.audio_seconds,
            memory_mb=self.memory_mb,
            size_mb=self.size_mb,
            params=self.params,
            flops=self.flops,
        )
