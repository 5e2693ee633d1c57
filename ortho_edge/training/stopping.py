"""SIGTERM, by which a machine is taken back, and Ctrl-C: the run saves and ends."""

import os
import signal
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

STOPPED_STATUS = 128 + signal.SIGTERM
"""Exit status of a run that SIGTERM stopped: it has not done what it was started for."""
_NOTED = b"\nCtrl-C: the update under way is finished and saved; again ends at once\n"


class StopSignal:
    """Notes SIGTERM and SIGINT while it is open; whoever trains asks between updates.

    A second SIGINT raises KeyboardInterrupt at once.

    Attributes:
        received: The signal, once there was one.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignal":
        self._process = os.getpid()
        # Python lets only the main thread have handlers.
        if threading.current_thread() is threading.main_thread():
            for one in (signal.SIGTERM, signal.SIGINT):
                if one == signal.SIGINT and signal.getsignal(one) == signal.SIG_IGN:
                    continue  # As a shell starts what runs in the background.
                self._previous[one] = signal.signal(one, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # A loader process that was forked; the trainer ends it.
        again, self.received = self.received is not None, signal.Signals(number)
        if number == signal.SIGINT:
            if again:
                raise KeyboardInterrupt
            # What a handler interrupts may hold the lock of the log.
            with suppress(OSError):
                os.write(2, _NOTED)
