"""Every kind of device has what a crowd needs."""

from __future__ import annotations

import inspect

import pytest

from mynah.sim.load.device import Device
from mynah.sim.load.fetcher import Fetcher
from mynah.sim.load.member import Member


@pytest.mark.parametrize("kind", [Device, Fetcher])
def test_methods_and_their_arguments(kind: type[Device] | type[Fetcher]) -> None:
    wanted = {
        name: value for name, value in vars(Member).items() if inspect.isfunction(value) and name[0] != "_"
    }
    assert len(wanted) >= 7
    for name, value in wanted.items():
        assert list(inspect.signature(getattr(kind, name)).parameters) == list(
            inspect.signature(value).parameters
        )
    assert set(inspect.get_annotations(Member)) <= set(kind.__slots__)
