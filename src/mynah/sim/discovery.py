"""What a device does first: post its description to the OTA address and learn where to talk."""

from __future__ import annotations

import uuid

import aiohttp
import msgspec

from mynah.sim.link import ConnectError, sentence

TIMEOUT_S = 30.0
"""What firmware gives the answer's headers."""

MAX_REPLY_BYTES = 65_536
"""A reply has some hundred bytes; a device could not hold more than this."""


class DeviceIdentity(msgspec.Struct, frozen=True):
    """Who the simulated device says it is. The defaults are a device of its own with a locally administered MAC."""

    device_id: str = "02:00:00:00:00:01"
    client_id: str = ""
    """UUID; empty: derived from ``device_id``, so that the same device is the same client every time."""
    board: str = "mynah-simulator"
    version: str = "2.4.2"
    """The firmware whose behaviour is simulated."""
    language: str = "en-US"
    serial_number: str = ""
    """32 characters burnt into the chip at the factory; most devices have none."""
    hmac_key: bytes = b""
    """The secret that comes with it."""

    @property
    def client(self) -> str:
        """The client id that is sent."""
        return self.client_id or str(uuid.uuid5(uuid.NAMESPACE_OID, self.device_id))

    def ota_headers(self) -> dict[str, str]:
        """Headers of the OTA request."""
        headers = {
            "Activation-Version": "2" if self.serial_number else "1",
            "Device-Id": self.device_id,
            "Client-Id": self.client,
            "User-Agent": f"{self.board}/{self.version}",
            "Accept-Language": self.language,
            "Content-Type": "application/json",
        }
        if self.serial_number:
            headers["Serial-Number"] = self.serial_number
        return headers

    def ota_body(self) -> bytes:
        """Body of the OTA request: the keys firmware sends, in its order, its quoted numbers included."""
        return msgspec.json.encode(
            {
                "version": 2,
                "language": self.language,
                "flash_size": 16_777_216,
                "minimum_free_heap_size": "8318916",
                "mac_address": self.device_id,
                "uuid": self.client,
                "chip_model_name": "esp32s3",
                "chip_info": {"model": 9, "cores": 2, "revision": 2, "features": 18},
                "application": {
                    "name": "xiaozhi",
                    "version": self.version,
                    "compile_time": "Aug  8 2026T12:00:00Z",
                    "idf_version": "v5.5.1",
                    "elf_sha256": "0" * 64,
                },
                "partition_table": [
                    {"label": "ota_0", "type": 0, "subtype": 16, "address": 131_072, "size": 4_128_768}
                ],
                "ota": {"label": "ota_0"},
                "display": {"monochrome": False, "width": 240, "height": 240},
                "board": {
                    "type": self.board,
                    "name": self.board,
                    "manufacturer": "mynah",
                    "ssid": "simulated",
                    "rssi": -55,
                    "channel": 1,
                    "ip": "127.0.0.1",
                    "mac": self.device_id,
                },
            }
        )

    def websocket_headers(self, token: str, protocol: int) -> dict[str, str]:
        """Headers of the WebSocket request. A token that holds a space is sent as it is, as firmware does."""
        headers = {
            "Protocol-Version": str(protocol),
            "Device-Id": self.device_id,
            "Client-Id": self.client,
        }
        if token:
            headers["Authorization"] = token if " " in token else f"Bearer {token}"
        return headers


def asking_for(url: str, transport: str) -> str:
    """Return an OTA address that asks for another transport than the WebSocket, such as ``pull4g``."""
    return f"{url}{'&' if '?' in url else '?'}transport={transport}" if transport else url


async def fetch_reply(
    url: str,
    identity: DeviceIdentity,
    *,
    timeout_s: float = TIMEOUT_S,
    verify_tls: bool = True,
    transport: str = "",
) -> bytes:
    """Post to the OTA address and return the answer's body, at most `MAX_REPLY_BYTES`. Raises ConnectError.

    ``transport`` is one to ask for besides the WebSocket.

    Like firmware this takes nothing but 200 for a success and follows no redirect.
    """
    if not url.startswith(("http://", "https://")):
        raise ConnectError(f"{url} is not an OTA address; it looks like http://host:8003/xiaozhi/ota/")
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(
                asking_for(url, transport),
                data=identity.ota_body(),
                headers=identity.ota_headers(),
                allow_redirects=False,
                ssl=verify_tls,
            ) as response,
        ):
            if response.status != 200:
                said = sentence(await response.content.read(MAX_REPLY_BYTES))
                raise ConnectError(
                    f"{url} answered {response.status}{said}, and devices take only 200: is this the OTA address?"
                )
            body = await response.content.read(MAX_REPLY_BYTES + 1)
            # `read` stops at the end of a chunk, so the rest is asked for until there is none or too much.
            while len(body) <= MAX_REPLY_BYTES and (more := await response.content.read(MAX_REPLY_BYTES)):
                body += more
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise ConnectError(_why(url, error, timeout_s)) from error
    if len(body) > MAX_REPLY_BYTES:
        raise ConnectError(f"{url} answered more than {MAX_REPLY_BYTES} bytes")
    return body


def _why(url: str, error: Exception, timeout_s: float) -> str:
    """Say in one line why there is no answer and what to do."""
    match error:
        case aiohttp.ClientConnectorCertificateError(certificate_error=reason):
            told = getattr(reason, "verify_message", reason)
            return f"{url} has a certificate that nobody vouches for ({told}): pass --insecure to take it"
        case aiohttp.ClientConnectorSSLError():
            return f"{url}: TLS handshake failed: is it http:// there?"
        case aiohttp.ClientConnectorError(os_error=reason):
            # aiohttp's own text repeats the address as a Python tuple; only name look-ups have more to say.
            detail = "" if isinstance(reason, ConnectionError) else f" ({reason})"
            return f"nothing answers at {url}{detail}: start the server (`mynah serve`) or pass its address with --ota"
        case TimeoutError():
            return f"{url} did not answer within {timeout_s:g} s"
        case aiohttp.ServerDisconnectedError() if url.startswith("http:"):
            return f"{url} hung up without an answer: is it https:// there?"
    return f"cannot ask {url}: {error}"
