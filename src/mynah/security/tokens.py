"""Tokens that devices present, and the decision whether to let a device in.

A token from the OTA reply is ``<issued at>.<scope>.<signature>``: the signature is an HMAC-SHA256 over time,
scope and identity, so no table of tokens is kept and every server with the same secret accepts it.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mynah.config import Settings
from mynah.errors import ConfigError

SECRET_BYTES: Final = 32
"""As long as the hash: more adds nothing, less could be searched."""
MAX_TOKEN_CHARS: Final = 512
"""Ours have about 60; longer credentials are refused unread so that nobody makes us hash megabytes."""
MAX_ID_CHARS: Final = 64
"""Ids are compared up to here, which is where the transports cut them; real ones have 17 and 36."""
CLOCK_SKEW_S: Final = 300
"""How far in the future a token may be dated: servers that share a secret do not share a clock."""

_MAC: Final = re.compile(r"[0-9a-f]{2}([:_-][0-9a-f]{2}){5}")


def normal_device_id(text: str) -> str:
    """Return a Device-Id as it is compared: lower case, a MAC address with colons."""
    text = text.strip().lower()[:MAX_ID_CHARS].rstrip()
    return text.replace("-", ":").replace("_", ":") if _MAC.fullmatch(text) else text


def normal_client_id(text: str) -> str:
    """Return a Client-Id as it is compared."""
    return text.strip()[:MAX_ID_CHARS].rstrip()


class TokenIssuer:
    """Makes and checks the tokens that devices get from the OTA reply. Keeps no state but the secret."""

    def __init__(self, secret: bytes, expire_seconds: int = 365 * 86400) -> None:
        if len(secret) < 8:
            raise ConfigError("server.auth_key is too short: use at least 8 characters, or leave it empty")
        self._secret = secret
        self._expire_seconds = expire_seconds

    def issue(self, device_id: str, client_id: str, now: float | None = None) -> str:
        """Return a token for this device. An id that is empty here will not be checked later.

        ``now`` is in seconds since the epoch. The token is plain ASCII without spaces, about 60 characters.
        """
        stamp = int(time.time() if now is None else now)
        device_id, client_id = normal_device_id(device_id), normal_client_id(client_id)
        scope = ("d" if device_id else "") + ("c" if client_id else "") or "-"
        return f"{stamp}.{scope}.{self._sign(stamp, scope, device_id, client_id)}"

    def verify(self, token: str, device_id: str, client_id: str, now: float | None = None) -> bool:
        """Say whether we made this token for this device and it has not expired. Never raises."""
        parts = token.split(".")
        if len(token) > MAX_TOKEN_CHARS or len(parts) != 3:
            return False
        stamp_text, scope, signature = parts
        # As we write it, in ASCII digits: int() would take a sign, zeros, blanks, underscores and other scripts.
        if not re.fullmatch(r"0|[1-9][0-9]{0,11}", stamp_text) or scope not in {"d", "c", "dc", "-"}:
            return False
        stamp = int(stamp_text)
        expected = self._sign(
            stamp,
            scope,
            normal_device_id(device_id) if "d" in scope else "",
            normal_client_id(client_id) if "c" in scope else "",
        )
        genuine = hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace"))
        moment = time.time() if now is None else now
        return genuine and -CLOCK_SKEW_S <= moment - stamp < self._expire_seconds

    def _sign(self, stamp: int, scope: str, device_id: str, client_id: str) -> str:
        # Lengths in front of the texts: no two identities give the same bytes.
        text = f"{stamp}.{scope}.{len(device_id)}:{device_id}.{len(client_id)}:{client_id}"
        digest = hmac.new(self._secret, text.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


# ---------------------------------------------------------------- the secret


def signing_secret(settings: Settings) -> bytes:
    """Return ``server.auth_key``, or the secret kept in the data directory, which is made on first use."""
    configured = settings.server.auth_key.get_secret_value()
    return configured.encode() if configured else load_or_create_secret(settings.data_dir / "auth.key")


def load_or_create_secret(path: Path) -> bytes:
    """Return the secret in a file, made with mode 0600 if it is not there.

    Several processes may start at once: all get the same secret. Raises ConfigError when the file cannot be
    used.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _create(path)
        text = path.read_text("ascii").strip()
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(
            f"the secret of device tokens, {path}, cannot be used ({reason}): make log.data_dir writable "
            "or set server.auth_key"
        ) from None
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        secret = b""
    if len(secret) < SECRET_BYTES:
        raise ConfigError(f"{path} is damaged: delete it, a new one is made at the next start")
    return secret


def _create(path: Path) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(SECRET_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(draft)  # unlike a rename this never replaces what another process just made
        except FileExistsError:
            pass
    finally:
        draft.unlink()


# ---------------------------------------------------------------- the decision


class AuthReason(enum.StrEnum):
    """Why a device was let in or not."""

    AUTH_OFF = "authentication is off"
    LOOPBACK = "connected from this machine"
    ALLOWED_DEVICE = "listed in server.auth.allowed_devices"
    NAMED_TOKEN = "presented a token of server.auth.tokens"  # noqa: S105 - a sentence
    ISSUED_TOKEN = "presented a token from the OTA reply"  # noqa: S105 - a sentence
    NOT_BOUND = "is not bound yet, type `bind` and the code it shows into the server's terminal"
    NO_TOKEN = "presented no token"  # noqa: S105 - a sentence
    WRONG_TOKEN = "presented a wrong or expired token"  # noqa: S105 - a sentence


@dataclass(frozen=True)
class AuthResult:
    """The decision. ``name`` is that of the fixed token, if one was used."""

    ok: bool
    reason: AuthReason
    name: str = ""


class Authenticator:
    """Decides who may connect, by the policy in ``server.auth``.

    With ``enabled: auto``, tokens are needed unless the server listens on loopback only, and a peer that
    connects from this machine without forwarding headers is let in without one: the tools on the box itself.
    A reverse proxy on the same machine must therefore set ``X-Forwarded-For`` or ``Forwarded``, as all common
    ones do; ``enabled: true`` makes no exception at all.

    With ``server.binding: code`` a device must have an owner besides, wherever it connects from and whether tokens
    are needed or not. Fixed tokens and ``allowed_devices`` were handed out by the owner, so they need no code.
    """

    def __init__(
        self,
        settings: Settings,
        issuer: TokenIssuer,
        clock: Callable[[], float] = time.time,
        is_bound: Callable[[str, str], bool] | None = None,
    ) -> None:
        """``is_bound`` says of a Device-Id and Client-Id whether it has an owner; None: owners are not asked for."""
        auth = settings.server.auth
        self._is_bound = is_bound
        self._issuer = issuer
        self._clock = clock
        self._auto = auth.enabled == "auto"
        self._required = auth.enabled is True or (self._auto and not is_loopback(settings.server.ip))
        self._named = tuple((item.token.get_secret_value().encode(), item.name) for item in auth.tokens)
        self._allowed = frozenset(normal_device_id(item) for item in auth.allowed_devices)

    @property
    def required(self) -> bool:
        """Whether devices need a token, so that the OTA reply should carry one."""
        return self._required

    def awaits_owner(self, device_id: str, client_id: str) -> bool:
        """Say whether this device stays outside until its code has been typed in."""
        if self._is_bound is None or self._is_allowed(device_id):
            return False
        return not self._is_bound(device_id, client_id)

    def token_for(self, device_id: str, client_id: str) -> str:
        """Return what the OTA reply hands to this device: a token, or nothing when none is needed.

        Who tells no id gets none either: such a token would be good for every device. Nor does a device that has
        no owner yet.
        """
        if not self._required or not (device_id or client_id) or self.awaits_owner(device_id, client_id):
            return ""
        return self._issuer.issue(device_id, client_id, self._clock())

    def check(
        self,
        authorization: str | None,
        device_id: str,
        client_id: str,
        peer_ip: str,
        forwarded: bool,
        cross_site: bool = False,
    ) -> AuthResult:
        """Decide on one connection.

        ``authorization`` is ``Bearer <token>`` or the bare token, from the header or a query parameter.
        ``forwarded`` says that the request carries forwarding headers, trusted or not; ``cross_site`` that a browser
        sends it for a page of somebody else: such a page is not "this machine", even if its browser runs here.
        """
        token = _bearer(authorization)
        if self.awaits_owner(device_id, client_id):
            name = self._named_token(token) if token else None
            if name is None:
                return AuthResult(False, AuthReason.NOT_BOUND)
            return AuthResult(True, AuthReason.NAMED_TOKEN, name)
        stranger = self._auto and cross_site
        if not self._required and not stranger:
            return AuthResult(True, AuthReason.AUTH_OFF)
        if self._auto and not forwarded and not cross_site and is_loopback(peer_ip):
            return AuthResult(True, AuthReason.LOOPBACK)
        if self._is_allowed(device_id):
            return AuthResult(True, AuthReason.ALLOWED_DEVICE)
        if not token:
            return AuthResult(False, AuthReason.NO_TOKEN)
        name = self._named_token(token)
        if name is not None:
            return AuthResult(True, AuthReason.NAMED_TOKEN, name)
        if self._issuer.verify(token, device_id, client_id, self._clock()):
            return AuthResult(True, AuthReason.ISSUED_TOKEN)
        return AuthResult(False, AuthReason.WRONG_TOKEN)

    def _is_allowed(self, device_id: str) -> bool:
        return bool(device_id) and normal_device_id(device_id) in self._allowed

    def _named_token(self, token: str) -> str | None:
        found: str | None = None
        presented = token[:MAX_TOKEN_CHARS].encode("utf-8", "replace")
        for known, name in self._named:  # all of them, so that the time taken tells nothing
            if hmac.compare_digest(known, presented):
                found = name
        return found


def _bearer(authorization: str | None) -> str:
    text = (authorization or "").strip()
    scheme, _, rest = text.partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else text


def is_loopback(address: str) -> bool:
    """Say whether an address (or ``localhost``) reaches this machine only. Unreadable ones do not."""
    if address.lower() == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback
