"""Who asks, read from headers and query string."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.net.peer import read_peer, told_peer


@given(st.text(max_size=40), st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=5))
def test_any_target_and_headers_can_be_read(query: str, headers: dict[str, str]) -> None:
    peer = read_peer(f"/xiaozhi/v1/?{query}", headers, "127.0.0.1")
    assert len(peer.device_id) <= 64


def test_headers_win_over_the_query() -> None:
    peer = read_peer(
        "/xiaozhi/v1/?device-id=AA&client-id=q&token=t",
        {"device-id": " BB ", "authorization": "Bearer h"},
        "::1",
    )
    assert (peer.device_id, peer.client_id, peer.authorization) == ("bb", "q", "Bearer h")


def test_ids_are_printable_and_normal() -> None:
    peer = read_peer("/xiaozhi/v1/?device-id=x%0AINFO%1b[31m", {}, "127.0.0.1")
    assert peer.device_id == "xinfo[31m"
    assert read_peer("/", {"device-id": "AA-BB-CC-DD-EE-FF"}, "").device_id == "aa:bb:cc:dd:ee:ff"


def test_ids_told_later_count_only_where_the_handshake_had_none() -> None:
    nobody = read_peer("/", {}, "127.0.0.1")
    told = told_peer(nobody, "AA-BB-CC-DD-EE-FF\n", "me\x1b")
    assert (told.device_id, told.client_id) == ("aa:bb:cc:dd:ee:ff", "me")
    assert told_peer(told, "02:00:00:00:00:01", "you") == told


@pytest.mark.parametrize(
    ("origin", "host"), [("http://[x", "mynah"), ("http://a", "[x"), ("http://a", "a]:1[")]
)
def test_a_page_or_host_that_is_no_address_is_another_site(origin: str, host: str) -> None:
    assert read_peer("/", {"origin": origin, "host": host}, "127.0.0.1").cross_site


def test_only_headers_that_are_asked_for_are_kept_and_devices_share_them() -> None:
    told = {
        "host": "mynah:8000",
        "x-forwarded-for": "192.0.2.7",
        "user-agent": "esp-box",
        "authorization": "x",
    }
    one = read_peer("/", {**told, "device-id": "a"}, "192.0.2.1", "10.0.0.1", secure=True)
    other = read_peer("/", {**told, "device-id": "b"}, "192.0.2.2", "10.0.0.1")
    assert dict(one.headers) == {"host": "mynah:8000", "x-forwarded-for": "192.0.2.7"}
    assert one.headers is other.headers
    assert one.forwarded
    assert (one.origin.local_ip, one.origin.secure) == ("10.0.0.1", True)
    assert (other.local_ip, other.secure) == ("10.0.0.1", False)
