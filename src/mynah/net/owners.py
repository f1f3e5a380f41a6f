"""Under which name the things of a device are kept: its conversation, its reminders, the messages for it.

A Device-Id is a MAC address, which is no secret, and where devices need no owner anybody gets a token for any of them.
What was said to one must not be told to another that only calls itself so. Therefore a device is known by the Client-Id
it came with first; who comes with another is served, and finds nothing.
"""

from __future__ import annotations

from collections import OrderedDict

MAX_DEVICES = 10_000
"""Devices whose Client-Id is remembered, some 300 bytes each; as many as conversations are kept of. Overflow policy:
the one that has not come for longest is forgotten, and may come with another."""
MARK = "#"
"""Between Device-Id and Client-Id in the name of one that is not the first; no Device-Id has it."""


class Owners:
    """Remembers who came first under a Device-Id. Used on the event loop only."""

    def __init__(self, max_devices: int = MAX_DEVICES) -> None:
        self._max = max_devices
        self._clients: OrderedDict[str, str] = OrderedDict()

    def kept_as(self, device_id: str, client_id: str) -> str:
        """Return the name for a device that connects: its Device-Id, or one of its own if another came before."""
        self._clients.setdefault(device_id, client_id)
        self._clients.move_to_end(device_id)
        if len(self._clients) > self._max:
            self._clients.popitem(last=False)
        return self.name(device_id, client_id)

    def name(self, device_id: str, client_id: str) -> str:
        """Return what `kept_as` would, and remember nothing: whoever comes next may still be the first."""
        first = self._clients.get(device_id, client_id)
        return device_id if client_id == first else f"{device_id}{MARK}{client_id}"

    def knows(self, device_id: str) -> bool:
        """Return whether a device has been here under this id before."""
        return device_id in self._clients

    def forget(self, device_id: str) -> None:
        """Whoever comes next is the first."""
        self._clients.pop(device_id, None)


def device_of(kept_as: str) -> str:
    """Return the Device-Id of a name that `Owners.kept_as` returned."""
    return kept_as.split(MARK, 1)[0]
