"""Tokens, their secret, and who is let in."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah import config
from mynah.errors import ConfigError
from mynah.security.tokens import (
    Authenticator,
    AuthReason,
    TokenIssuer,
    is_loopback,
    load_or_create_secret,
    normal_device_id,
    signing_secret,
)

MAC = "aa:bb:cc:dd:ee:ff"
NOW = 1_800_000_000.0
ISSUER = TokenIssuer(b"0123456789abcdef", expire_seconds=1000)


def test_a_token_is_bound_to_device_and_client_and_expires() -> None:
    token = ISSUER.issue(MAC, "client-1", NOW)
    assert ISSUER.verify(token, MAC, "client-1", NOW + 999)
    assert ISSUER.verify(token, "AA-BB-CC-DD-EE-FF", "client-1", NOW)
    assert not ISSUER.verify(token, MAC, "client-1", NOW + 1000)
    assert not ISSUER.verify(token, MAC, "client-1", NOW - 301)
    assert not ISSUER.verify(token, MAC, "client-2", NOW)
    assert not ISSUER.verify(token, "aa:bb:cc:dd:ee:00", "client-1", NOW)
    assert not TokenIssuer(b"another secret").verify(token, MAC, "client-1", NOW)
    assert " " not in token
    assert len(token) < 100


def test_an_id_that_was_not_told_is_not_checked() -> None:
    assert ISSUER.verify(ISSUER.issue("", "", NOW), MAC, "c", NOW)
    assert ISSUER.verify(ISSUER.issue(MAC, "", NOW), MAC, "c", NOW)
    assert not ISSUER.verify(ISSUER.issue(MAC, "", NOW), "x", "c", NOW)
    assert not ISSUER.verify(ISSUER.issue("", "c", NOW), MAC, "d", NOW)


def test_scope_and_time_are_signed() -> None:
    stamp, scope, signature = ISSUER.issue(MAC, "c", NOW).split(".")
    assert scope == "dc"
    assert not ISSUER.verify(f"{stamp}.-.{signature}", MAC, "c", NOW)
    assert not ISSUER.verify(f"{int(stamp) + 1}.{scope}.{signature}", MAC, "c", NOW)
    for written in (f"+{stamp}", f" {stamp}", f"0{stamp}x", stamp.replace("8", "٨")):
        assert not ISSUER.verify(f"{written}.{scope}.{signature}", MAC, "c", NOW)


@given(st.text(), st.text(), st.text())
def test_no_text_is_taken_for_a_token(token: str, device_id: str, client_id: str) -> None:
    assert not ISSUER.verify(token, device_id, client_id, NOW)


@given(st.text(), st.text())
def test_every_identity_gets_a_token_that_works(device_id: str, client_id: str) -> None:
    token = ISSUER.issue(device_id, client_id, NOW)
    assert token.isascii()
    assert ISSUER.verify(token, device_id, client_id, NOW)
    assert ISSUER.verify(token, normal_device_id(device_id), client_id.strip()[:64], NOW)
    if 0 < len(device_id.strip()) < 60:
        assert not ISSUER.verify(token, device_id.strip() + "x", client_id, NOW)


def test_the_secret_survives_a_restart_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "data" / "auth.key"
    secret = load_or_create_secret(path)
    assert len(secret) == 32
    assert load_or_create_secret(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    load_or_create_secret(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["auth.key"]


def test_servers_that_start_together_agree_on_the_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = set(pool.map(load_or_create_secret, [tmp_path / "k"] * 32))
    assert len(results) == 1


def test_an_unusable_secret_is_explained(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("abcd")
    with pytest.raises(ConfigError, match="delete it"):
        load_or_create_secret(tmp_path / "short")
    (tmp_path / "dir").mkdir()
    with pytest.raises(ConfigError, match=r"log\.data_dir"):
        load_or_create_secret(tmp_path / "dir")
    with pytest.raises(ConfigError, match=r"server\.auth_key is too short"):
        TokenIssuer(b"abc")


def test_the_configured_key_is_used_first(tmp_path: Path) -> None:
    data = f"log.data_dir={tmp_path}"
    assert signing_secret(config.defaults("server.auth_key=shared-by-servers", data)) == b"shared-by-servers"
    assert not list(tmp_path.iterdir())
    assert signing_secret(config.defaults(data)) == load_or_create_secret(tmp_path / "auth.key")


def authenticator(*overrides: str) -> Authenticator:
    return Authenticator(config.defaults(*overrides), ISSUER, clock=lambda: NOW)


def reason(
    checker: Authenticator,
    authorization: str | None = None,
    *,
    device: str = MAC,
    peer: str = "192.168.1.9",
    forwarded: bool = False,
) -> AuthReason:
    result = checker.check(authorization, device, "c", peer, forwarded)
    assert result.ok is (result.reason not in {AuthReason.NO_TOKEN, AuthReason.WRONG_TOKEN})
    return result.reason


def test_auto_asks_for_a_token_unless_only_this_machine_can_connect() -> None:
    open_to_lan = authenticator()
    assert open_to_lan.required
    assert reason(open_to_lan) is AuthReason.NO_TOKEN
    assert reason(open_to_lan, peer="127.0.0.1") is AuthReason.LOOPBACK
    assert reason(open_to_lan, peer="::ffff:127.0.0.1") is AuthReason.LOOPBACK
    assert reason(open_to_lan, peer="::1") is AuthReason.LOOPBACK
    assert reason(open_to_lan, peer="127.0.0.1", forwarded=True) is AuthReason.NO_TOKEN
    for address in ("127.0.0.1", "::1", "localhost"):
        local = authenticator(f"server.ip={address}")
        assert not local.required
        assert local.token_for(MAC, "c") == ""
        assert reason(local, "Bearer nonsense", peer="10.0.0.1") is AuthReason.AUTH_OFF


def test_true_makes_no_exception_and_false_asks_nobody() -> None:
    strict = authenticator("server.auth.enabled=true", "server.ip=127.0.0.1")
    assert reason(strict, peer="127.0.0.1") is AuthReason.NO_TOKEN
    assert reason(authenticator("server.auth.enabled=false"), "Bearer x") is AuthReason.AUTH_OFF


def test_the_token_of_the_ota_reply_opens_the_door() -> None:
    checker = authenticator()
    token = checker.token_for(MAC, "c")
    for written in (f"Bearer {token}", f"bearer  {token}", token):
        assert reason(checker, written) is AuthReason.ISSUED_TOKEN
    assert reason(checker, f"Bearer {token}", device="aa:bb:cc:dd:ee:00") is AuthReason.WRONG_TOKEN
    for written in ("Bearer None", "Bearer test-token", f"Basic {token}"):
        assert reason(checker, written) is AuthReason.WRONG_TOKEN
    for empty in ("Bearer ", "bearer", "", None):
        assert reason(checker, empty) in {AuthReason.NO_TOKEN, AuthReason.WRONG_TOKEN}


def test_fixed_tokens_and_listed_devices() -> None:
    checker = authenticator(
        "server.auth.tokens=[{token: kitchen-token, name: kitchen}, {token: küche, name: de}]",
        "server.auth.allowed_devices=['24:0A:C4:1D:3B:F0']",
    )
    assert checker.check("Bearer kitchen-token", MAC, "", "10.0.0.1", False).name == "kitchen"
    assert checker.check("küche", MAC, "", "10.0.0.1", False).name == "de"
    assert reason(checker, "Bearer kitchen-tokem") is AuthReason.WRONG_TOKEN
    assert reason(checker, "Bearer wrong", device="24:0a:c4:1d:3b:f0") is AuthReason.ALLOWED_DEVICE
    assert reason(checker, None, device="") is AuthReason.NO_TOKEN


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.8.8.8", True), ("fe80::1%eth0", False), ("0.0.0.0", False), ("", False), ("LOCALHOST", True)],
)
def test_loopback_addresses(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


def test_device_ids_are_compared_in_one_form() -> None:
    assert normal_device_id(" AA-BB-CC-DD-EE-FF ") == MAC
    assert normal_device_id("aa_bb_cc_dd_ee_ff") == MAC
    assert normal_device_id("My_Board-1") == "my_board-1"


def test_a_device_without_an_owner_stays_outside() -> None:
    fixed = "server.auth.tokens=[{token: sesame-sesame, name: kitchen}]"
    listed = "server.auth.allowed_devices=['02:00:00:00:00:09']"
    bound: set[tuple[str, str]] = set()
    for overrides in ((), ("server.ip=127.0.0.1",), ("server.auth.enabled=false",)):
        checker = Authenticator(
            config.defaults(fixed, listed, *overrides),
            ISSUER,
            clock=lambda: NOW,
            is_bound=lambda device, client: (device, client) in bound,
        )

        def enter(
            token: str = "", device: str = MAC, peer: str = "127.0.0.1", checker: Authenticator = checker
        ) -> AuthReason:
            return checker.check(token, device, "c", peer, False).reason

        bound.clear()
        issued = ISSUER.issue(MAC, "c", NOW)
        assert checker.awaits_owner(MAC, "c")
        assert checker.token_for(MAC, "c") == ""
        for token in ("", "Bearer nonsense", issued):  # a token from before it was unbound
            assert enter(token) is AuthReason.NOT_BOUND
        assert enter(device="") is AuthReason.NOT_BOUND
        assert enter("Bearer sesame-sesame") is AuthReason.NAMED_TOKEN
        assert not checker.awaits_owner("02:00:00:00:00:09", "any")
        assert enter(device="02-00-00-00-00-09", peer="10.0.0.1") in {
            AuthReason.ALLOWED_DEVICE,
            AuthReason.AUTH_OFF,
        }
        bound.add((MAC, "c"))
        assert not checker.awaits_owner(MAC, "c")
        assert enter() in {AuthReason.LOOPBACK, AuthReason.AUTH_OFF}
        assert bool(checker.token_for(MAC, "c")) is checker.required
        if checker.required:
            assert enter(peer="10.0.0.1") is AuthReason.NO_TOKEN
            assert enter(issued, peer="10.0.0.1") is AuthReason.ISSUED_TOKEN
