"""Type to a Mynah server and read its answers: a whole client of the protocol in some forty lines.

    python3 examples/text_client.py http://127.0.0.1:8003/xiaozhi/ota/ "what time is it" "goodbye"

Needs aiohttp, which is there wherever Mynah is installed.
"""
# ruff: noqa: T201 - printing is what it is for

import asyncio
import json
import sys
import uuid

import aiohttp

WHO = {"Device-Id": "02:00:00:00:00:02", "Client-Id": str(uuid.uuid5(uuid.NAMESPACE_OID, "text client"))}


async def discover(http, ota_url):
    """Ask where to connect; return the WebSocket address and the token."""
    async with http.post(ota_url, headers=WHO, json={"application": {"version": "1.0.0"}}) as reply:
        told = await reply.json()
    if "activation" in told:
        sys.exit(f"type this into the server's terminal, then try again: bind {told['activation']['code']}")
    return told["websocket"]["url"], told["websocket"]["token"]


async def ask(socket, words):
    """Say something by text and print the reply."""
    await socket.send_json({"type": "listen", "state": "detect", "text": words})
    packets = 0
    async for frame in socket:
        if frame.type is aiohttp.WSMsgType.BINARY:  # speech; a device would decode and play it
            packets += 1
            continue
        match json.loads(frame.data):
            case {"type": "tts", "state": "sentence_start", "text": sentence}:
                print("<", sentence)
            case {"type": "tts", "state": "stop"}:
                break
    else:
        sys.exit("the server has ended the conversation")
    print(f"  ({packets} packets of speech)")


async def main(ota_url, *questions):
    """Hold one conversation."""
    async with aiohttp.ClientSession() as http:
        url, token = await discover(http, ota_url)
        async with http.ws_connect(url, headers=WHO | {"Authorization": f"Bearer {token}"}) as socket:
            await socket.send_json({"type": "hello", "version": 1, "transport": "websocket"})
            await socket.receive_json()  # the server's hello: session_id and audio_params
            for words in questions:
                print(">", words)
                await ask(socket, words)


if len(sys.argv) < 3:
    sys.exit(__doc__)
try:
    asyncio.run(main(*sys.argv[1:]))
except (aiohttp.ClientError, OSError) as error:
    sys.exit(f"no conversation: {error}")
