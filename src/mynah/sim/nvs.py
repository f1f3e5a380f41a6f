"""The flash of a device, where the answers of the OTA address end up: written key by key, never erased."""

from __future__ import annotations

from collections.abc import Mapping

from mynah.errors import WireError
from mynah.wire.ota import MAX_KEY_CHARS, MAX_STRING_BYTES


class Nvs:
    """Values by namespace and key: texts and 32-bit numbers. They outlive a boot."""

    def __init__(self) -> None:
        self.writes = 0
        """Values really written; one that has not changed is left alone."""
        self._values: dict[tuple[str, str], str | int] = {}

    def merge(self, namespace: str, settings: Mapping[str, object]) -> None:
        """Write every text and number of ``settings``; other members are skipped, other keys keep their values.

        Raises WireError for what does not fit, where firmware aborts; what came before it stays written.
        """
        for key, value in settings.items():
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                continue
            if len(key.encode()) > MAX_KEY_CHARS:
                raise WireError(f"{namespace} has a key of more than {MAX_KEY_CHARS} characters")
            if isinstance(value, str):
                if len(value.encode()) >= MAX_STRING_BYTES:
                    raise WireError(f"{namespace}.{key} has {MAX_STRING_BYTES} bytes or more")
            else:
                value = int(value)  # noqa: PLW2901 - as the JSON library of firmware does
                if not -(2**31) <= value < 2**31:
                    raise WireError(f"{namespace}.{key} is beyond 32 bits")
            self._write((namespace, key), value)

    def text(self, namespace: str, key: str) -> str:
        """Return a text; empty when there is none, or a number."""
        value = self._values.get((namespace, key))
        return value if isinstance(value, str) else ""

    def number(self, namespace: str, key: str) -> int:
        """Return a number; 0 when there is none, or a text."""
        value = self._values.get((namespace, key))
        return value if isinstance(value, int) else 0

    def _write(self, where: tuple[str, str], value: str | int) -> None:
        if self._values.get(where) != value:
            self._values[where] = value
            self.writes += 1
