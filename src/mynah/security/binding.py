"""Binding: which devices have an owner, and the codes by which an owner takes hold of a new one.

An unknown device shows six digits. Whoever runs the server reads them off the device and types them in, which
proves that device and operator are in the same hands. Nobody can try out codes from outside: they are taken from
the operator's own terminal only, so there is no limit on wrong ones.

Anybody who reaches the server can ask for codes, for as many invented devices as he likes. Therefore codes are counted
by who asked for them: he pushes out codes of his own, and those of others only from as many addresses as there may be
codes. Who shares an address with the device (its NAT, a proxy that is not trusted) can still be in its way.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from mynah.errors import ConfigError, MynahError
from mynah.security.files import LatestFile
from mynah.security.tokens import normal_client_id, normal_device_id

CODE_DIGITS: Final = 6
"""Firmware speaks them one by one; more would be a burden to type."""
CODE_LIFETIME_S: Final = 600.0
"""How long a code may be typed in: time to walk to a computer, too short to be found on an old photo."""
RENEW_S: Final = 60.0
"""A code with less time left than this is replaced when the device asks again, so none expires in the typing."""
MAX_PENDING: Final = 1000
"""Codes waiting to be typed: few enough that a mistyped one practically never hits another (one in a thousand).
Overflow policy: the oldest of the source that has most goes; its device gets a new one when it asks again, which it
does within a minute."""
MAX_PENDING_PER_SOURCE: Final = 20
"""Of those, asked for from one address: as many new devices as somebody unpacks in ten minutes. Overflow policy: the
oldest of that source goes."""
MAX_BOUND: Final = 100_000
"""Devices with an owner, about 200 bytes each in the file, which is written as a whole. Overflow policy: `bind`
refuses."""
MAX_NAME_CHARS: Final = 64
"""Names appear in lists and logs."""


Identity: TypeAlias = tuple[str, str]
"""Device-Id and Client-Id, as they are compared."""


class BindingError(MynahError):
    """A code or device cannot be bound or unbound. The message is for the operator."""

    code = "binding"


class BoundDevice(msgspec.Struct, frozen=True):
    """A device with an owner."""

    device_id: str
    client_id: str
    """The random id that the device made for itself: unlike a MAC address, neighbours cannot know it."""
    name: str
    challenge: str
    """What the device was told together with its code, and tells when it asks whether it is bound."""
    bound_at: int
    """Seconds since 1970 UTC."""


class Offer(msgspec.Struct, frozen=True):
    """What an unbound device is told to show (``code``) and to repeat (``challenge``)."""

    code: str
    challenge: str
    expires_at: float
    """By the clock given to `Bindings`, in s."""


class Bindings:
    """Devices with an owner, and codes of those without. Not thread-safe: use from the event loop."""

    def __init__(
        self,
        bound: Iterable[BoundDevice] = (),
        changed: Callable[[tuple[BoundDevice, ...]], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``changed`` is given all bound devices after every change; ``clock`` gives seconds since the epoch."""
        self._bound = {device.device_id: device for device in bound}
        self._changed = changed
        self._clock = clock
        self._offers: dict[Identity, Offer] = {}  # in the order of expiry, as all live equally long
        self._by_code: dict[str, Identity] = {}
        self._by_source: dict[str, dict[Identity, None]] = {}  # each with its oldest first
        self._source_of: dict[Identity, str] = {}

    def __len__(self) -> int:
        return len(self._bound)

    def __iter__(self) -> Iterator[BoundDevice]:
        return iter(tuple(self._bound.values()))

    @property
    def pending(self) -> int:
        """How many devices wait for their code to be typed in."""
        self._expire()
        return len(self._offers)

    def is_bound(self, device_id: str, client_id: str) -> bool:
        """Say whether this device has an owner. One whose flash was erased has a new Client-Id and has none."""
        device = self._bound.get(normal_device_id(device_id))
        return device is not None and device.client_id == normal_client_id(client_id)

    def is_activated(self, device_id: str, client_id: str, challenge: str) -> bool:
        """Say whether this device has been bound; a ``challenge``, if it tells one, must be that of its offer."""
        if not self.is_bound(device_id, client_id):
            return False
        expected = self._bound[normal_device_id(device_id)].challenge
        return not challenge or secrets.compare_digest(challenge.encode(), expected.encode())

    def offer(self, device_id: str, client_id: str, source: str = "") -> Offer:
        """Return the code of an unbound device: the same one every time until it is about to expire.

        ``source`` is the address that asks for it.
        """
        self._expire()
        identity = (normal_device_id(device_id), normal_client_id(client_id))
        known = self._offers.get(identity)
        if known is not None:
            if known.expires_at - self._clock() >= RENEW_S:
                return known
            self._withdraw(identity)
        self._make_room(source)
        made = Offer(self._unused_code(), secrets.token_hex(16), self._clock() + CODE_LIFETIME_S)
        self._offers[identity] = made
        self._by_code[made.code] = identity
        self._by_source.setdefault(source, {})[identity] = None
        self._source_of[identity] = source
        return made

    def bind(self, code: str, name: str = "") -> BoundDevice:
        """Give the device that shows this code an owner, and return it. Raises BindingError.

        A device that was bound before under another Client-Id is bound anew.
        """
        self._expire()
        identity = self._by_code.get(code)
        if identity is None:
            raise BindingError(
                f"no device shows the code {code[:20]} (any more): read it off the device again"
            )
        if len(self._bound) >= MAX_BOUND and identity[0] not in self._bound:
            raise BindingError(f"{MAX_BOUND} devices are bound, which is as many as there may be: unbind one")
        offer = self._withdraw(identity)
        name = "".join(char for char in name if char.isprintable()).strip()[:MAX_NAME_CHARS]
        device = BoundDevice(*identity, name, offer.challenge, int(self._clock()))
        self._bound[device.device_id] = device
        self._tell()
        return device

    def unbind(self, device_id: str) -> BoundDevice:
        """Take away a device's owner and return what it was. Raises BindingError."""
        device = self._bound.pop(normal_device_id(device_id), None)
        if device is None:
            raise BindingError(f"{device_id[:MAX_NAME_CHARS]} is not bound; `devices` lists those that are")
        self._tell()
        return device

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed(tuple(self._bound.values()))

    def _unused_code(self) -> str:
        while True:  # a thousandth of all codes is in use at most
            code = f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}}"
            if code not in self._by_code:
                return code

    def _make_room(self, source: str) -> None:
        own = self._by_source.get(source, {})
        if len(own) >= MAX_PENDING_PER_SOURCE:
            self._withdraw(next(iter(own)))
        elif len(self._offers) >= MAX_PENDING:
            busiest = max(self._by_source, key=lambda known: len(self._by_source[known]))
            self._withdraw(next(iter(self._by_source[busiest])))

    def _withdraw(self, identity: Identity) -> Offer:
        offer = self._offers.pop(identity)
        del self._by_code[offer.code]
        source = self._source_of.pop(identity)
        del self._by_source[source][identity]
        if not self._by_source[source]:
            del self._by_source[source]
        return offer

    def _expire(self) -> None:
        now = self._clock()
        while self._offers:
            identity, oldest = next(iter(self._offers.items()))
            if oldest.expires_at > now:
                return
            self._withdraw(identity)


# ---------------------------------------------------------------- kept on disk


class _Kept(msgspec.Struct):
    devices: list[BoundDevice]
    version: int = 1


class BindingFile:
    """The bound devices as a file, which is replaced as a whole: a crash leaves the old one or the new one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = LatestFile(path, "bindings made now are lost at the next restart")

    def read(self) -> list[BoundDevice]:
        """Return the bound devices; none without a file. Raises ConfigError when it cannot be used."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_Kept).devices
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ConfigError(
                f"the bound devices, {self._path}, cannot be read ({error.strerror}): give the server access"
            ) from None
        except (msgspec.DecodeError, UnicodeError):
            raise ConfigError(
                f"{self._path} is damaged: put back a copy, or delete it and bind the devices again"
            ) from None

    def save(self, bound: tuple[BoundDevice, ...]) -> None:
        """Write on a thread of its own. Of several states that wait to be written, only the last one is."""
        self._file.save(msgspec.json.format(msgspec.json.encode(_Kept(list(bound))), indent=1) + b"\n")

    def close(self) -> None:
        """Wait until all is written."""
        self._file.close()
