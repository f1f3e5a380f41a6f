"""What a device offers to the server: tools over MCP or, before that existed, IoT things."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mynah.sim.discovery import DeviceIdentity
from mynah.sim.iot_things import IotThings
from mynah.sim.mcp_server import DeviceMcpServer
from mynah.wire.messages import DeviceMessage, Iot, Mcp

SendText = Callable[[bytes, DeviceMessage], None]
"""Sends a text frame as it is; the message says what the frame means."""


class _IotReport(msgspec.Struct, frozen=True, tag_field="type", tag="iot", omit_defaults=True):
    """An ``iot`` message as devices write it: with one of the two lists only."""

    session_id: str
    update: bool
    descriptors: list[dict[str, Any]] | None = None
    states: list[dict[str, Any]] | None = None


class Peripherals:
    """Speaks for the device's tools, or with ``iot`` for its things."""

    def __init__(
        self,
        identity: DeviceIdentity,
        send: SendText,
        *,
        iot: bool = False,
        full_tools: bool = False,
        photo: bytes = b"",
    ) -> None:
        """``photo``: see `DeviceMcpServer`."""
        self.mcp = DeviceMcpServer(
            identity.board, identity.version, identity=identity, full=full_tools, photo=photo
        )
        self.things = IotThings() if iot else None
        self._send = send
        self._session_id = ""

    @property
    def features(self) -> dict[str, Any]:
        """What the hello says about them. Firmware with IoT things knows no features at all."""
        return {} if self.things is not None else {"mcp": True, "glyph_push": False}

    def opened(self, session_id: str) -> None:
        """The hellos have been exchanged: things introduce themselves, one message each, and report their states."""
        self._session_id = session_id
        if self.things is not None:
            for descriptor in self.things.descriptors():
                self._report(Iot(descriptors=[descriptor]))
            self._report(Iot(states=self.things.states(changed_only=False)))

    def on_mcp(self, payload: Mapping[str, Any]) -> None:
        """Answer an MCP payload; a device of before its time ignores it."""
        if self.things is None:
            answer = self.mcp.handle(payload, later=self._answer)
            if answer is not None:
                self._answer(answer)

    def on_iot(self, commands: list[dict[str, Any]]) -> None:
        """Obey the commands, and say what they changed. Firmware with tools ignores them."""
        if self.things is not None:
            self.things.handle(commands)
            self.report_changes()

    def report_changes(self) -> None:
        """Say what has changed since the last report, as a device also does before it listens."""
        if self.things is not None and (changed := self.things.states(changed_only=True)):
            self._report(Iot(states=changed))

    def close(self) -> None:
        """The connection is gone: nobody waits for slow tools any more."""
        self.mcp.close()

    def _report(self, message: Iot) -> None:
        report = _IotReport(self._session_id, True, message.descriptors, message.states)
        self._send(msgspec.json.encode(report), message)

    def _answer(self, payload: dict[str, Any]) -> None:
        self._send(_mcp_frame(self._session_id, payload), Mcp(payload, self._session_id))


def _mcp_frame(session_id: str, payload: dict[str, Any]) -> bytes:
    """Write an answer as firmware does: put together from strings, and nothing in an error's message escaped."""
    if "error" in payload:
        text = (
            f'{{"jsonrpc":"2.0","id":{payload["id"]},"error":{{"message":"{payload["error"]["message"]}"}}}}'
        )
        body = text.encode()
    else:
        body = msgspec.json.encode(payload)
    return b'{"session_id":' + msgspec.json.encode(session_id) + b',"type":"mcp","payload":' + body + b"}"
