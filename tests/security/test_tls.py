"""The TLS context of the device ports: what is wrong with certificate or key is said before anybody connects."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from mynah import config
from mynah.errors import ConfigError
from mynah.security.tls import server_context
from tests.certificates import write_certificate


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    said: list[str] = []
    sink = logger.add(lambda message: said.append(str(message)), level="WARNING", format="{message}")
    yield said
    logger.remove(sink)


def context(cert: object = "", key: object = "") -> ssl.SSLContext | None:
    return server_context(config.defaults(f"server.tls.cert={cert}", f"server.tls.key={key}"))


def test_without_settings_there_is_no_tls() -> None:
    assert context() is None


def test_a_sound_pair_is_used_without_a_word(tmp_path: Path, warnings: list[str]) -> None:
    made = context(*write_certificate(tmp_path))
    assert made is not None
    assert made.minimum_version is ssl.TLSVersion.TLSv1_2
    assert not warnings


def test_both_or_neither(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path)
    with pytest.raises(ConfigError, match=r"server\.tls\.cert is set but server\.tls\.key is not"):
        context(cert)
    with pytest.raises(ConfigError, match=r"server\.tls\.key is set but server\.tls\.cert is not"):
        context(key=key)


def test_files_that_are_not_there_or_not_pem(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path)
    with pytest.raises(ConfigError, match=r"server\.tls\.cert: there is no file .*none\.pem"):
        context(tmp_path / "none.pem", key)
    with pytest.raises(ConfigError, match=r"server\.tls\.key: there is no file"):
        context(cert, tmp_path)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ConfigError, match="PEM"):
        context(tmp_path / "text", key)
    with pytest.raises(ConfigError, match="PEM"):
        context(cert, tmp_path / "text")


def test_a_key_that_is_too_short_is_called_that(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path)
    short, short_key = write_certificate(tmp_path, "short", rsa_bits=1024)
    chain = tmp_path / "chain.pem"
    chain.write_text(cert.read_text() + short.read_text())
    for pair in ((short, short_key), (chain, key)):
        with pytest.raises(
            ConfigError, match=r"server\.tls\.cert: .*too short .*RSA needs 2048 bits.* EC key"
        ):
            context(*pair)
    assert context(*write_certificate(tmp_path, "long", rsa_bits=2048)) is not None


def test_what_the_library_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        error = ssl.SSLError()
        error.reason = "CA_MD_TOO_WEAK"
        raise error

    pair = write_certificate(tmp_path)
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", refuse)
    with pytest.raises(ConfigError, match=r"cannot be used as .* in PEM format \(ca md too weak\)"):
        context(*pair)


def test_a_key_of_another_kind(tmp_path: Path) -> None:
    cert, _ = write_certificate(tmp_path)
    _, other = write_certificate(tmp_path, "other", rsa_bits=2048)
    with pytest.raises(ConfigError, match=r"other\.key is not the private key of"):
        context(cert, other)


def test_a_key_of_another_certificate(tmp_path: Path) -> None:
    cert, _ = write_certificate(tmp_path)
    _, other = write_certificate(tmp_path, "other")
    with pytest.raises(ConfigError, match=r"other\.key is not the private key of"):
        context(cert, other)


def test_a_key_with_a_passphrase_does_not_ask_for_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="protected by a passphrase; write it without one"):
        context(*write_certificate(tmp_path, passphrase=b"secret"))


def test_an_expired_certificate_is_used_with_a_warning(tmp_path: Path, warnings: list[str]) -> None:
    cert, key = write_certificate(tmp_path, valid_days=-1)
    assert context(cert, key) is not None
    (warning,) = warnings
    assert str(cert) in warning
    assert "expired" in warning
