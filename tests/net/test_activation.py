"""What a device that waits to be bound is answered; the rest is shown over sockets in the conformance tests."""

from __future__ import annotations

import json
from http import HTTPStatus

from hypothesis import given
from hypothesis import strategies as st

from mynah.net.activation import ActivationService
from mynah.security.binding import Bindings

MAC = "aa:bb:cc:dd:ee:ff"


def test_where_no_owner_is_needed_everybody_is_bound() -> None:
    assert ActivationService(None).status("", "", b"") is HTTPStatus.OK


def test_from_202_to_200() -> None:
    bindings = Bindings()
    service = ActivationService(bindings)
    offer = bindings.offer(MAC, "c")
    right = json.dumps({"challenge": offer.challenge}).encode()
    assert service.status(MAC, "c", right) is HTTPStatus.ACCEPTED
    bindings.bind(offer.code)
    assert service.status(MAC.upper(), "c", right) is HTTPStatus.OK
    assert service.status(MAC, "c", b"{}") is HTTPStatus.OK
    assert service.status(MAC, "c", b'{"challenge":"wrong"}') is HTTPStatus.ACCEPTED
    assert service.status(MAC, "other client", right) is HTTPStatus.ACCEPTED
    assert service.status("", "", right) is HTTPStatus.ACCEPTED


@given(st.text(), st.text(), st.binary(max_size=200))
def test_nobody_gets_in_by_asking(device_id: str, client_id: str, body: bytes) -> None:
    assert ActivationService(Bindings()).status(device_id, client_id, body) is HTTPStatus.ACCEPTED
