"""TLS of the device ports: the certificate is read, tried out and judged before anybody connects."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

from loguru import logger

from mynah.config import Settings
from mynah.errors import ConfigError

_log = logger.bind(tag="tls")


def server_context(settings: Settings, warn: Callable[[str], None] = _log.warning) -> ssl.SSLContext | None:
    """Return the TLS context of the device ports, or None when ``server.tls`` is not set.

    Warns of a certificate that devices will not accept (expired, not valid yet): with a sentence for ``warn``.
    Raises ConfigError.
    """
    tls = settings.server.tls
    if not tls.cert and not tls.key:
        return None
    for key, value, other in (("cert", tls.cert, "key"), ("key", tls.key, "cert")):
        if not value:
            raise ConfigError(
                f"server.tls.{other} is set but server.tls.{key} is not: set both or neither of them"
            )
        if not Path(value).is_file():
            raise ConfigError(f"server.tls.{key}: there is no file {value}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, tls.cert, tls.key)
    fault = _fault(context, tls.cert)
    if fault:
        warn(f"server.tls.cert: clients that check certificates will refuse {tls.cert}: {fault}")
    return context


def _load(context: ssl.SSLContext, cert: str, key: str) -> None:
    def passphrase() -> str:
        raise ConfigError(
            f"server.tls.key: {key} is protected by a passphrase; write it without one: "
            f"openssl pkey -in {key} -out FILE"
        )

    try:
        context.load_cert_chain(cert, key, password=passphrase)
    except ssl.SSLError as error:
        raise ConfigError(_reason(error, cert, key)) from None
    except OSError as error:
        raise ConfigError(f"server.tls: {cert} and {key} cannot be read: {error.strerror}") from None


def _reason(error: ssl.SSLError, cert: str, key: str) -> str:
    # The second is what OpenSSL says of a key of another kind (RSA for EC).
    if error.reason in {"KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}:
        return f"server.tls.key: {key} is not the private key of the certificate {cert}"
    if error.reason in {"EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL"}:
        return (
            f"server.tls.cert: a key in {cert} is too short to be safe (RSA needs 2048 bits): make a certificate "
            "with a longer one, or with an EC key"
        )
    said = f" ({error.reason.lower().replace('_', ' ')})" if error.reason else ""
    return (
        f"server.tls: {cert} and {key} cannot be used as a certificate and a private key in PEM format{said}"
    )


def _fault(context: ssl.SSLContext, cert: str) -> str:
    """Shake hands with ourselves, trusting this one certificate, and return why that fails; empty when it does not."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False  # devices may know us by any name
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cert)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server),
        context.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(3):  # a handshake is over after two round trips
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
    return ""
