"""The tokens with which devices send pictures: JSON Web Tokens (RFC 7519), signed with HMAC-SHA256.

Their key is derived from the server's secret, so that none is ever good for anything else, and no other token
of ours is good for pictures.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Final

import jwt
import msgspec

from mynah.security.tokens import CLOCK_SKEW_S, normal_client_id, normal_device_id

LIFETIME_S: Final = 86400
"""A device gets a fresh token each time it connects, and connections end when nobody speaks."""
MAX_TOKEN_CHARS: Final = 4096
"""Ours have about 270, with the strangest ids 2500; longer ones are refused unread."""
MAX_HEADER_CHARS: Final = 128
"""Of the token's first part, which is read before the signature is checked; ours has 36."""

_AUDIENCE: Final = "vision"
_ALGORITHM: Final = "HS256"


class VisionGrant(msgspec.Struct, frozen=True):
    """Whose picture it is. Ids are as `issue` was given them, normalised."""

    device_id: str
    client_id: str


class _Claims(msgspec.Struct, frozen=True):
    sub: str
    client_id: str
    aud: str
    iat: int
    exp: int


class VisionTokens:
    """Makes and checks tokens for pictures. Keeps no state but the key."""

    def __init__(self, secret: bytes) -> None:
        """``secret`` is the server's, the same as for device tokens."""
        self._key = hmac.digest(secret, b"mynah vision tokens, version 1", hashlib.sha256)

    def issue(self, device_id: str, client_id: str, now: float | None = None) -> str:
        """Return a token for this device, good for a day. ``now`` is in seconds since the epoch."""
        stamp = int(time.time() if now is None else now)
        claims = _Claims(
            sub=normal_device_id(device_id),
            client_id=normal_client_id(client_id),
            aud=_AUDIENCE,
            iat=stamp,
            exp=stamp + LIFETIME_S,
        )
        return jwt.encode(msgspec.structs.asdict(claims), self._key, algorithm=_ALGORITHM)

    def verify(self, token: str, now: float | None = None) -> VisionGrant | None:
        """Return whose token this is, or None when we did not make it or it has expired. Never raises."""
        if len(token) > MAX_TOKEN_CHARS or not token.isascii() or token.find(".") > MAX_HEADER_CHARS:
            return None
        try:
            # The times are checked below, against the caller's clock.
            decoded = jwt.decode(
                token,
                self._key,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                options={"verify_exp": False, "verify_iat": False},
            )
            claims = msgspec.convert(decoded, _Claims)
        except (jwt.InvalidTokenError, msgspec.ValidationError):
            return None
        moment = time.time() if now is None else now
        if not claims.iat - CLOCK_SKEW_S <= moment < claims.exp:
            return None
        return VisionGrant(device_id=claims.sub, client_id=claims.client_id)
