"""A conversation with the built-in responder: real tools, real reminders, a simulated device, a fixed clock."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from mynah.dialogue.outbox import Outbox
from mynah.dialogue.reminders import Agenda
from mynah.providers.base import ChatMessage, Finish, LlmRequest, Role, TextDelta, ToolCall
from mynah.providers.llm.builtin import BuiltinLlm, BuiltinLlmOptions
from mynah.sim.iot_things import IotThings
from mynah.sim.mcp_server import DeviceMcpServer
from mynah.texts import detect_language
from mynah.tools.base import ToolContext
from mynah.tools.device_mcp import DeviceMcp
from mynah.tools.iot import DeviceThings
from mynah.tools.loader import load_plugins
from mynah.tools.toolbox import Toolbox

NOW = datetime(2026, 11, 21, 15, 5, tzinfo=ZoneInfo("Europe/Berlin"))
TOOLBOX = Toolbox(load_plugins().functions)
MAX_ROUNDS = 5


class Talk:
    """One conversation. `say` returns the answer; ``face`` and ``called`` tell more about the last one."""

    def __init__(self) -> None:
        self.device = DeviceMcpServer()
        self.messages: list[ChatMessage] = [ChatMessage(Role.SYSTEM, "You are a friendly assistant.")]
        self.agenda = Agenda(Outbox(lambda _: None).announce)
        self.reminders = self.agenda.of("02:00:00:00:00:01")
        self.face = ""
        self.called: list[ToolCall] = []
        self.ended = False
        self.deltas: list[str] = []
        self.offers_tools = True
        self._llm = BuiltinLlm("builtin", BuiltinLlmOptions())
        self._mcp = DeviceMcp(self._send)
        self.things = IotThings()
        self._iot = DeviceThings(self._send_commands)
        self._tools = TOOLBOX.for_session(self._mcp, self._iot)

    async def connect(self) -> None:
        """Let the assistant find the device's tools."""
        assert await self._mcp.discover() == ""

    def describe_things(self) -> None:
        """Let the assistant know the device's legacy things."""
        self._iot.describe(self.things.descriptors())
        self._iot.update(self.things.states())

    async def say(self, said: str, language: str = "") -> str:
        """Return the answer, without the emoji in front of it."""
        language = language or detect_language(said)
        context = ToolContext("device", language, lambda: NOW, self.reminders)
        self.messages.append(ChatMessage(Role.USER, said))
        self.called = []
        for _ in range(MAX_ROUNDS):
            calls = await self._generate(language)
            if not calls:
                break
            self.called += calls
            self.messages.append(ChatMessage(Role.ASSISTANT, "", tuple(calls)))
            for call in calls:
                result = await self._tools.call(context, call)
                self.ended |= result.end_session
                self.messages.append(
                    ChatMessage(Role.TOOL, result.content, tool_call_id=call.id, name=call.name)
                )
        answer = "".join(self.deltas)
        self.messages.append(ChatMessage(Role.ASSISTANT, answer))
        self.face, _, words = answer.partition(" ")
        # Firmware reports what has changed when it listens again.
        self._iot.update(self.things.states(changed_only=True))
        return words

    async def _generate(self, language: str) -> list[ToolCall]:
        offered = self._tools.specs() if self.offers_tools else ()
        chunks = [
            chunk async for chunk in self._llm.generate(LlmRequest(tuple(self.messages), offered, language))
        ]
        assert isinstance(chunks[-1], Finish)
        assert not any(isinstance(chunk, Finish) for chunk in chunks[:-1])
        self.deltas = [chunk.text for chunk in chunks if isinstance(chunk, TextDelta)]
        calls = [chunk for chunk in chunks if isinstance(chunk, ToolCall)]
        assert not (self.deltas and calls)
        assert chunks[-1].reason == ("tool_calls" if calls else "stop")
        return calls

    def _send(self, payload: dict[str, object]) -> None:
        reply = self.device.handle(payload)
        if reply is not None:
            asyncio.get_running_loop().call_soon(self._mcp.receive, reply)

    def _send_commands(self, commands: list[dict[str, Any]]) -> None:
        self.things.handle(commands)
