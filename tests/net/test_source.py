"""Whom a request is counted for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.net.address import RequestOrigin
from mynah.net.source import source_of

PROXIES = ("10.0.0.0/8", "fd00::1")


@pytest.mark.parametrize(
    ("peer", "told", "source"),
    [
        ("192.0.2.1", "", "192.0.2.1"),
        ("192.0.2.1", "198.51.100.1", "192.0.2.1"),  # anybody can say that
        ("::ffff:192.0.2.1", "", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "", "fe80::/64"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("fd00::1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "192.0.2.9, 198.51.100.1", "198.51.100.1"),  # the first is what the client said itself
        ("10.0.0.1", "192.0.2.9, 198.51.100.1, 10.0.0.2", "198.51.100.1"),  # two proxies
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.1"),
        ("10.0.0.1", "2001:db8::7", "2001:db8::/64"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, ", "10.0.0.1"),
        ("", "", ""),
    ],
)
def test_the_peer_or_whom_a_trusted_proxy_heard(peer: str, told: str, source: str) -> None:
    assert source_of(RequestOrigin({"x-forwarded-for": told}, peer), PROXIES) == source


@given(st.text(max_size=60))
def test_whatever_is_told_it_is_an_address_of_bounded_length(told: str) -> None:
    assert len(source_of(RequestOrigin({"x-forwarded-for": told}, "10.0.0.1"), PROXIES)) <= 43
