"""Who finds what was kept for a device."""

from __future__ import annotations

from mynah.net.owners import Owners, device_of

LAMP, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"


def test_who_came_first_under_a_device_id_finds_its_things_again() -> None:
    owners = Owners()
    assert owners.kept_as(LAMP, "a") == LAMP
    assert owners.kept_as(OTHER, "b") == OTHER
    assert owners.kept_as(LAMP, "a") == LAMP


def test_who_comes_with_another_client_id_has_things_of_his_own() -> None:
    owners = Owners()
    owners.kept_as(LAMP, "a")
    for client in ("b", "", "c"):
        name = owners.kept_as(LAMP, client)
        assert name != LAMP
        assert device_of(name) == LAMP
        assert name == owners.kept_as(LAMP, client)
    assert owners.kept_as(LAMP, "a") == LAMP, "an impostor does not take its place"


def test_after_a_change_of_owner_the_next_one_is_the_first() -> None:
    owners = Owners()
    owners.kept_as(LAMP, "a")
    owners.forget(LAMP)
    owners.forget(OTHER)
    assert owners.kept_as(LAMP, "b") == LAMP
    assert owners.kept_as(LAMP, "a") != LAMP


def test_who_was_here_is_known() -> None:
    owners = Owners()
    assert not owners.knows(LAMP)
    owners.kept_as(LAMP, "a")
    assert owners.knows(LAMP)
    assert not owners.knows(OTHER)


def test_to_ask_for_a_name_remembers_nothing() -> None:
    owners = Owners()
    assert owners.name(LAMP, "a") == LAMP
    assert not owners.knows(LAMP)
    assert owners.kept_as(LAMP, "b") == LAMP
    assert owners.name(LAMP, "a") == owners.kept_as(LAMP, "a") != LAMP


def test_only_so_many_are_remembered() -> None:
    owners = Owners(max_devices=2)
    for device in (LAMP, OTHER, LAMP, "02:00:00:00:00:03"):
        owners.kept_as(device, "a")
    assert owners.kept_as(LAMP, "b") != LAMP, "the one that has not come for longest is forgotten"
    assert owners.kept_as(OTHER, "b") == OTHER
