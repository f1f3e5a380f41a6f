"""Tokens for pictures: whose they are, how long, and that nothing else passes for one."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.security.tokens import TokenIssuer
from mynah.security.vision_tokens import LIFETIME_S, MAX_TOKEN_CHARS, VisionGrant, VisionTokens

MAC = "aa:bb:cc:dd:ee:ff"
NOW = 1_800_000_000.0
SECRET = b"0123456789abcdef"
TOKENS = VisionTokens(SECRET)
CLAIMS = {"sub": MAC, "client_id": "c", "aud": "vision", "iat": int(NOW), "exp": int(NOW) + 100}


def signed(claims: dict[str, Any], key: bytes | None = None, **header: Any) -> str:
    return jwt.encode(claims, TOKENS._key if key is None else key, headers=header)


def test_a_token_says_whose_it_is_for_a_day() -> None:
    token = TOKENS.issue("AA-BB-CC-DD-EE-FF", " client-1 ", NOW)
    grant = VisionGrant(device_id=MAC, client_id="client-1")
    assert TOKENS.verify(token, NOW) == grant
    assert TOKENS.verify(token, NOW + LIFETIME_S - 1) == grant
    assert TOKENS.verify(token, NOW + LIFETIME_S) is None
    assert TOKENS.verify(token, NOW - 299) == grant  # the clocks of two servers
    assert TOKENS.verify(token, NOW - 301) is None
    assert VisionTokens(SECRET).verify(token, NOW) == grant
    assert VisionTokens(b"another secret").verify(token, NOW) is None


def test_it_is_a_standard_token() -> None:
    token = TOKENS.issue(MAC, "c", NOW)
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2])
    assert header == {"alg": "HS256", "typ": "JWT"}
    assert claims == {
        "sub": MAC, "client_id": "c", "aud": "vision", "iat": int(NOW), "exp": int(NOW) + LIFETIME_S,
    }  # fmt: skip
    assert len(token) < 400


def test_device_tokens_and_vision_tokens_are_not_each_others() -> None:
    devices = TokenIssuer(SECRET)
    assert TOKENS.verify(devices.issue(MAC, "c", NOW), NOW) is None
    assert not devices.verify(TOKENS.issue(MAC, "c", NOW), MAC, "c", NOW)
    assert TOKENS.verify(signed(CLAIMS), NOW) is not None
    assert TOKENS.verify(jwt.encode(CLAIMS, SECRET.ljust(32)), NOW) is None  # the server's secret itself


@pytest.mark.parametrize("changed", [
    {"aud": "other"}, {"aud": ["vision", "other"]}, {"aud": None}, {"sub": None}, {"sub": 7}, {"client_id": 1},
    {"exp": "tomorrow"}, {"iat": None}, {"exp": None}, {"exp": 1e400},
])  # fmt: skip
def test_claims_must_be_ours(changed: dict[str, Any]) -> None:
    claims = {key: value for key, value in (CLAIMS | changed).items() if value is not None}
    try:
        token = signed(claims)
    except TypeError:
        pytest.skip("cannot be written")
    assert TOKENS.verify(token, NOW) is None


def test_other_algorithms_are_refused() -> None:
    none = jwt.encode(CLAIMS, None, algorithm="none")
    longer = jwt.encode(CLAIMS, TOKENS._key.ljust(64), algorithm="HS512")
    assert TOKENS.verify(none, NOW) is None
    assert TOKENS.verify(longer, NOW) is None


@given(st.text(), st.text())
def test_any_ids_come_back_normalised(device_id: str, client_id: str) -> None:
    grant = TOKENS.verify(TOKENS.issue(device_id, client_id, NOW), NOW)
    assert grant is not None
    assert TOKENS.verify(TOKENS.issue(grant.device_id, grant.client_id, NOW), NOW) == grant


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*", fullmatch=True))
def test_no_text_is_taken_for_a_token(token: str) -> None:
    assert TOKENS.verify(token, NOW) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)


@given(JSON)
def test_no_header_is_too_strange(header: Any) -> None:
    payload, signature = TOKENS.issue(MAC, "c", NOW).split(".")[1:]
    for value in (header, {"alg": header}, {"alg": "HS256", "typ": header, "crit": header}, {"b64": header}):
        first = base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
        assert TOKENS.verify(f"{first}.{payload}.{signature}", NOW) is None


def test_every_changed_character_counts() -> None:
    token = TOKENS.issue(MAC, "c", NOW)
    for index, letter in enumerate(token[:-1]):  # the last one has bits that mean nothing
        other = "A" if letter != "A" else "B"
        assert TOKENS.verify(token[:index] + other + token[index + 1 :], NOW) is None


def test_deep_and_long_tokens_are_refused_unread() -> None:
    deep = base64.urlsafe_b64encode(b"[" * 2900).decode()
    assert TOKENS.verify(f"{deep}..", NOW) is None
    assert TOKENS.verify("x" * (MAX_TOKEN_CHARS + 1), NOW) is None
    assert TOKENS.verify("\udcff.é.x", NOW) is None
    assert TOKENS.verify("", NOW) is None
