"""A whole voice device in one file: it asks with a WAV file, writes the answer into another, and has a lamp.

    pip install aiohttp av
    python3 examples/voice_device.py http://127.0.0.1:8003/xiaozhi/ota/ question.wav answer.wav

It finds the server, sends the recording at the speed at which it was spoken, as if somebody held a button meanwhile
("manual" mode), and plays what comes back. Ctrl-C interrupts the answer. Ask it to switch the lamp on: the server's
language model then calls the tool below (MCP).
"""
# ruff: noqa: T201 - printing is what it is for

import asyncio
import contextlib
import json
import signal
import sys
import uuid
import wave
from pathlib import Path

import aiohttp
import av

WHO = {"Device-Id": "02:00:00:00:00:03", "Client-Id": str(uuid.uuid5(uuid.NAMESPACE_OID, "voice device"))}
RATE, FRAME_S = 16000, 0.06  # what we send; the server answers with frames of the same length
HEARD_RATE = 48000  # Opus is decoded at its own rate, whatever the sender announced
PATIENCE_S = 30  # a server that heard nothing it could understand says nothing
TEXT_OR_BINARY = (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)
LAMP = {
    "name": "self.lamp.set",
    "description": "Switch the lamp on or off.",
    "inputSchema": {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]},
}


def opus_packets(path):
    """Yield a recording as Opus packets of 60 ms, 16 kHz, mono."""
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format = RATE, "mono", "s16"
    encoder.options = {"frame_duration": str(round(FRAME_S * 1000)), "application": "voip"}
    encoder.open()
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE, frame_size=encoder.frame_size)
    with av.open(path) as file:
        for frame in (*file.decode(audio=0), None):  # None: what is left in the resampler
            for piece in resampler.resample(frame):
                yield from map(bytes, encoder.encode(piece))


class Device:
    """One conversation: one question, one answer."""

    def __init__(self, socket):
        self.socket, self.lamp_on, self.heard = socket, False, []
        self.decoder = av.CodecContext.create("libopus", "r")
        self.decoder.sample_rate, self.decoder.layout = HEARD_RATE, "mono"

    async def ask(self, path):
        """Hold the button, speak, let go."""
        await self.socket.send_json({"type": "listen", "state": "start", "mode": "manual"})
        for packet in opus_packets(path):
            await self.socket.send_bytes(packet)
            await asyncio.sleep(FRAME_S)
        await self.socket.send_json({"type": "listen", "state": "stop"})

    async def hear_out(self):
        """Take what the server sends until its answer is over."""
        while (frame := await self.socket.receive(PATIENCE_S)).type in TEXT_OR_BINARY:
            if frame.type is aiohttp.WSMsgType.BINARY:
                self.heard += self.decoder.decode(av.Packet(frame.data))
                continue
            match json.loads(frame.data):
                case {"type": "stt", "text": words}:
                    print(">", words)
                case {"type": "tts", "state": "sentence_start", "text": words}:
                    print("<", words)
                case {"type": "tts", "state": "stop"}:
                    return
                case {"type": "mcp", "payload": {"id": number, "method": method, **rest}}:
                    answer = self.obey(method, rest.get("params", {}))
                    payload = {"jsonrpc": "2.0", "id": number, **answer}
                    await self.socket.send_json({"type": "mcp", "payload": payload})
        sys.exit("the server hung up before its answer was over")

    def obey(self, method, params):
        """Answer a request of the server's (JSON-RPC 2.0)."""
        match method, params:
            case "initialize", _:
                about = {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}}
                return {"result": about | {"serverInfo": {"name": "voice-device", "version": "1.0.0"}}}
            case "tools/list", _:
                return {"result": {"tools": [LAMP]}}
            case "tools/call", {"name": "self.lamp.set", "arguments": {"on": bool(on)}}:
                self.lamp_on = on
                print("* the lamp is", "on" if on else "off")
                return {"result": {"content": [{"type": "text", "text": "true"}], "isError": False}}
        return {"error": {"code": -32601, "message": f"this device cannot do {method}"}}

    def interrupt(self):
        """Have the server end its answer, which it confirms with a tts stop."""
        print("* interrupted")
        self.aborting = asyncio.create_task(self.socket.send_json({"type": "abort"}))

    def save(self, path):
        """Write what was heard."""
        with wave.open(path, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(HEARD_RATE)
            to_pcm = av.AudioResampler(format="s16", layout="mono", rate=HEARD_RATE)
            for frame in self.heard:
                for piece in to_pcm.resample(frame):
                    file.writeframes(bytes(piece.planes[0])[: piece.samples * 2])


async def discover(http, ota_url):
    """Ask where to connect; return the WebSocket address and the token."""
    async with http.post(ota_url, headers=WHO, json={"application": {"version": "1.0.0"}}) as reply:
        told = await reply.json()
    if "activation" in told:
        sys.exit(f"type this into the server's terminal, then try again: bind {told['activation']['code']}")
    return told["websocket"]["url"], told["websocket"]["token"]


async def main(ota_url, question, answer):
    """Ask one question."""
    async with aiohttp.ClientSession() as http:
        url, token = await discover(http, ota_url)
        async with http.ws_connect(url, headers=WHO | {"Authorization": f"Bearer {token}"}) as socket:
            audio = {"format": "opus", "sample_rate": RATE, "channels": 1, "frame_duration": 60}
            hello = {"type": "hello", "version": 1, "transport": "websocket", "features": {"mcp": True}}
            await socket.send_json(hello | {"audio_params": audio})
            await socket.receive_json()  # the server's hello: session_id and audio_params
            device = Device(socket)
            with contextlib.suppress(NotImplementedError):  # Windows
                asyncio.get_running_loop().add_signal_handler(signal.SIGINT, device.interrupt)
            await asyncio.gather(device.ask(question), device.hear_out())
            device.save(answer)


if __name__ == "__main__":
    if len(sys.argv) != 4 or not Path(sys.argv[2]).is_file():
        sys.exit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except TimeoutError:
        sys.exit(f"no answer within {PATIENCE_S} s")
    except (aiohttp.ClientError, av.FFmpegError, OSError) as error:
        sys.exit(f"no conversation: {error}")
