"""Targets that read HTTP: service discovery, handshakes, addresses, credentials, pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

import msgspec

from mynah.config import Settings, load
from mynah.dialogue.outbox import MAX_WAIT_S, MAX_WORDS_CHARS
from mynah.errors import WireError
from mynah.net import address, announce
from mynah.net.peer import Peer, read_peer
from mynah.security.tokens import MAX_ID_CHARS, Authenticator, AuthReason, TokenIssuer, normal_device_id
from mynah.security.vision_tokens import VisionTokens
from mynah.wire import multipart, ota
from tests.fuzz import samples
from tests.fuzz.mutations import Shape
from tests.fuzz.target import KILO, MEGA, head_and_body, lowered, pieces, target, written

PROXIED = ("server.ip=0.0.0.0", 'server.trusted_proxies=["10.0.0.0/8"]', "server.auth.enabled=true")


@cache
def settings() -> Settings:
    return load(None, PROXIED, environ={})


# ---------------------------------------------------------------- HTTP


@target("ota.parse_request", samples.OTA_REQUESTS, Shape.TEXT, 80 * KILO)
def _ota_request(data: bytes) -> bool:
    headers, body = head_and_body(data)
    request = ota.parse_request(headers, body)
    for value in msgspec.structs.asdict(request).values():
        assert len(value) <= ota.MAX_FIELD_CHARS and (value.isprintable() or not value)
    assert re.fullmatch("([0-9a-f]{2}(:[0-9a-f]{2}){5})?", request.device_id)
    firmware = ota.no_update(request.app_version)
    reply = ota.encode_reply(ota.OtaReply(firmware=firmware), request.app_version)
    assert ota.decode_reply(reply).firmware is not None
    assert not ota.is_safe_version(request.app_version) or not ota.is_newer(
        firmware.version, request.app_version
    )
    assert len(ota.parse_activation(body).challenge) <= ota.MAX_FIELD_CHARS
    return bool(request.device_id)


@target("announce.parse_say", samples.SAY_REQUESTS, Shape.JSON, 16 * KILO)
def _say(data: bytes) -> bool:
    try:
        request = announce.parse_say(data)
    except WireError:
        return False
    assert request.device_id and len(request.device_id) <= MAX_ID_CHARS
    assert 0 < len(request.text) <= MAX_WORDS_CHARS and request.text.isprintable()
    assert 0 <= request.wait_s <= MAX_WAIT_S
    return True


@target("ota.decode_reply", samples.OTA_REPLIES, Shape.JSON, MEGA)
def _ota_reply(data: bytes) -> bool:
    try:
        reply = ota.decode_reply(data)
    except WireError:
        return False
    try:
        again = ota.encode_reply(reply, "1.0.0")
    except WireError:
        return True
    ota.decode_reply(again)
    return True


@target(
    "ota.is_newer",
    samples.as_text("1.2.3\n1.2", "2.0.0-rc1\n2.0", "0\n999999999.1", "v1\n1"),
    Shape.TEXT,
    8 * KILO,
)
def _versions(data: bytes) -> bool:
    left, _, right = written(data).partition("\n")
    newer, older = ota.is_newer(left, right), ota.is_newer(right, left)
    assert not (newer and older)
    assert not newer or ota.is_safe_version(left)
    return newer or older


@target("peer.read_peer", samples.HANDSHAKES, Shape.TEXT, 16 * KILO)
def _peer(data: bytes) -> bool:
    headers = lowered(head_and_body(data)[0])
    try:
        peer: Peer = read_peer(headers.pop("", "/"), headers, "127.0.0.1")
    except ValueError:
        return False
    for told in (peer.device_id, peer.client_id):
        assert len(told) <= MAX_ID_CHARS and told.isprintable()
    assert peer.forwarded in (True, False)
    assert peer.cross_site in (True, False)
    return bool(peer.device_id)


@target("address.websocket_address", samples.FORWARDED, Shape.TEXT, 16 * KILO)
def _forwarded(data: bytes) -> bool:
    headers = lowered(head_and_body(data)[0])
    plain = f"ws://192.168.1.2:8000{address.WEBSOCKET_PATH}"
    found = plain
    for peer in ("10.0.0.1", "10.0.0.1%x", written(data[:24])):
        origin = address.RequestOrigin(headers, peer, "192.168.1.2")
        found = address.websocket_address(settings(), origin, 8000)
        assert found.startswith(("ws://", "wss://")) and found.endswith(address.WEBSOCKET_PATH)
        assert found.isascii() and not set(found) & set(" \"'<>{}\\\r\n\0?#@")
        assert len(found) < 500 + len(headers.get("x-forwarded-prefix", ""))
        pages = (
            address.http_address(settings(), origin, "/x"),
            address.vision_address(settings(), origin, 8003),
        )
        for page in pages:
            assert page.startswith(("http://", "https://")) and page.isascii()
            assert not set(page) & set(" \"'<>{}\\\r\n\0?#@")
    return found != plain


_issuer = TokenIssuer(samples.SECRET)


@cache
def _authenticator() -> Authenticator:
    named = 'server.auth.tokens=[{"token": "named-token", "name": "kitchen"}]'
    return Authenticator(load(None, [*PROXIED, named], environ={}), _issuer, lambda: samples.NOW)


@target("tokens.verify", samples.CREDENTIALS, Shape.TEXT, 16 * KILO)
def _token(data: bytes) -> bool:
    lines = [*written(data).split("\n"), "", "", "", ""]
    token, device, client, ip = lines[:4]
    ok = _issuer.verify(token, device, client, samples.NOW)
    normal = normal_device_id(device)
    assert len(normal) <= MAX_ID_CHARS and normal_device_id(normal) == normal
    if ok:  # only what we have issued ourselves
        stamp, scope, _ = token.split(".")
        for_device, for_client = device if "d" in scope else "", client if "c" in scope else ""
        assert token == _issuer.issue(for_device, for_client, float(stamp)), "a token we never made"
    result = _authenticator().check(token, device, client, ip, forwarded=False)
    assert result.ok == (result.reason in {AuthReason.NAMED_TOKEN, AuthReason.ISSUED_TOKEN})
    return result.ok


_vision_tokens = VisionTokens(samples.SECRET)


@target("vision_tokens.verify", samples.VISION_TOKENS, Shape.TEXT, 16 * KILO)
def _vision_token(data: bytes) -> bool:
    token = written(data)
    grant = _vision_tokens.verify(token, samples.NOW)
    # Not the token itself: base64 has several spellings of the same signature.
    assert grant is None or (grant.device_id, grant.client_id) in {("02:00:00:00:00:01", "client"), ("", "")}
    return grant is not None


@target("multipart", samples.PICTURES, Shape.BINARY, 128 * KILO)
def _picture(data: bytes) -> bool:
    kind, _, body = data.partition(b"\r\n\r\n")
    try:
        boundary = multipart.boundary_of(written(kind))
    except WireError:
        boundary = b"x"
    whole, cut = _parts(boundary, iter([body])), _parts(boundary, pieces(body, len(data)))
    assert whole == cut, "the parts depend on how the bytes are cut"
    return whole is not None and len(whole) > 1


def _parts(boundary: bytes, cut: Iterator[bytes]) -> list[tuple[str, bytes]] | None:
    """Return name and content of each part; None for what is no multipart body."""
    decoder = multipart.MultipartDecoder(boundary)
    found: list[tuple[str, bytearray]] = []
    try:
        for piece in cut:
            for event in decoder.feed(piece):
                match event:
                    case multipart.PartBegin():
                        found.append((event.name, bytearray()))
                    case multipart.PartData():
                        found[-1][1].extend(event.data)
            assert len(decoder._buffer) <= multipart.MAX_HEADER_BYTES + len(boundary) + len(piece)
    except WireError:
        return None
    assert len(found) <= multipart.MAX_PARTS
    return [(name, bytes(content)) for name, content in found]
