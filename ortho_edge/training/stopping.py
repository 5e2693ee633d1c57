"""SIGTERM, by which a machine is taken back: the run saves and ends instead of dying."""

import signal
import threading
from types import FrameType

STOPPED_STATUS = 128 + signal.SIGTERM
"""Exit status of a run that was stopped: it has not done what it was started for."""


class StopSignal:
    """Notes SIGTERM while it is open; whoever trains asks between updates."""

    def __init__(self) -> None:
        self.received = False

    def __enter__(self) -> "StopSignal":
        # Python lets only the main thread have handlers.
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_main:
            signal.signal(signal.SIGTERM, self._previous)

    def _note(self, _: int, __: FrameType | None) -> None:
        self.received = True
