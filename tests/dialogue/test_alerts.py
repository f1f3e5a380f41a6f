"""Alerts that wait for the end of a reply."""

from __future__ import annotations

from mynah.dialogue.alerts import MAX_ALERTS, Alerts
from mynah.wire.messages import Alert


def alert(message: str) -> Alert:
    return Alert("status", message, "happy", "s")


def test_what_waits_is_sent_once_in_order() -> None:
    sent: list[Alert] = []
    alerts = Alerts(sent.append)
    alerts.flush()
    alerts.add(alert("a"))
    alerts.add(alert("b"))
    assert sent == []
    alerts.flush()
    alerts.flush()
    assert [a.message for a in sent] == ["a", "b"]


def test_the_oldest_give_way() -> None:
    sent: list[Alert] = []
    alerts = Alerts(sent.append)
    for number in range(MAX_ALERTS + 3):
        alerts.add(alert(str(number)))
    alerts.flush()
    assert [a.message for a in sent] == [str(number) for number in range(3, MAX_ALERTS + 3)]


def test_one_that_is_added_while_they_are_sent_waits_for_the_next_time() -> None:
    sent: list[Alert] = []

    def send(message: Alert) -> None:
        sent.append(message)
        if message.message == "a":
            alerts.add(alert("c"))

    alerts = Alerts(send)
    alerts.add(alert("a"))
    alerts.add(alert("b"))
    alerts.flush()
    assert [a.message for a in sent] == ["a", "b"]
    alerts.flush()
    assert [a.message for a in sent] == ["a", "b", "c"]
