"""Pictures of a device: a camera that has the server explain what it sees, and a screen that can be photographed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

import aiohttp
import msgspec

from mynah.sim.discovery import DeviceIdentity
from mynah.sim.mcp_tool import Refusal

UPLOAD_TIMEOUT_S = 30.0
"""How long firmware waits for the answer."""

MAX_ANSWER_BYTES = 65_536
"""Of an answer; a device could not hold more."""

JPEG = bytes.fromhex(
    "ffd8 ffe0 0010 4a46494600 0101 00 0001 0001 0000"  # JFIF 1.1
    "ffdb 0043 00" + "01" * 64 +  # quantisation: none
    "ffc0 000b 08 0010 0010 01 01 11 00"  # baseline, 16 × 16, one grey component
    "ffc4 0014 00 01" + "00" * 15 + "00"  # the only DC code: no difference to the block before
    "ffc4 0014 10 01" + "00" * 15 + "00"  # the only AC code: end of block
    "ffda 0008 01 01 00 003f 00 00"  # four blocks of two zero bits each
    "ffd9"
)  # fmt: skip
"""A picture of nothing: 16 × 16 pixels of medium grey."""


class Part(msgspec.Struct, frozen=True):
    """One part of a multipart form; with a ``filename`` it is a JPEG."""

    name: str
    data: bytes
    filename: str = ""


class Camera:
    """Takes pictures and asks the vision service about them. `explain_at` says where that is."""

    def __init__(self, identity: DeviceIdentity, picture: bytes = JPEG) -> None:
        """``picture`` (JPEG) is what it sees."""
        self.verify_tls = True
        self._identity = identity
        self._picture = picture
        self._url = self._token = ""

    def explain_at(self, vision: Mapping[str, object]) -> None:
        """Take what an ``initialize`` said; what it left out is kept, as firmware does."""
        url, token = vision.get("url"), vision.get("token")
        if isinstance(url, str):
            self._url = url
            self._token = token if isinstance(token, str) else ""

    async def take_photo(self, question: str) -> str:
        """Take a picture, ask ``question`` about it and return the answer as it came. Raises Refusal."""
        if not self._url:
            raise Refusal("Image explain URL or token is not set")
        headers = {"Device-Id": self._identity.device_id, "Client-Id": self._identity.client}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        parts = (Part("question", question.encode()), Part("file", self._picture, "camera.jpg"))
        return await upload(
            self._url, "----ESP32_CAMERA_BOUNDARY", parts, headers, verify_tls=self.verify_tls
        )


async def send_snapshot(url: str) -> bool:
    """Upload a picture of the screen. Raises Refusal."""
    await upload(url, "----ESP32_SCREEN_SNAPSHOT_BOUNDARY", (Part("file", JPEG, "screenshot.jpg"),), {})
    return True


async def upload(
    url: str, boundary: str, parts: Sequence[Part], headers: Mapping[str, str], *, verify_tls: bool = True
) -> str:
    """Post a form in chunks, without a length, and return the answer's body. Anything but 200 raises Refusal."""

    async def chunks() -> AsyncIterator[bytes]:
        for part in parts:
            filename = f'; filename="{part.filename}"\r\nContent-Type: image/jpeg' if part.filename else ""
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{part.name}"{filename}\r\n\r\n'
            yield head.encode()
            yield part.data
            yield b"\r\n"
        yield f"--{boundary}--\r\n".encode()

    content_type = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    timeout = aiohttp.ClientTimeout(total=UPLOAD_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(
                url,
                data=chunks(),
                headers={**headers, **content_type},
                allow_redirects=False,
                ssl=verify_tls,
            ) as response,
        ):
            body = await response.content.read(MAX_ANSWER_BYTES)
            while len(body) < MAX_ANSWER_BYTES and (more := await response.content.read(MAX_ANSWER_BYTES)):
                body += more
    except (aiohttp.ClientError, OSError, ValueError):  # a time-out is an OSError
        raise Refusal("Failed to connect to explain URL") from None
    if response.status != 200:
        raise Refusal(f"Failed to upload photo, status code: {response.status}")
    return body.decode(errors="replace")
