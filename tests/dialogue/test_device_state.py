"""What is known of devices, over a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from mynah.dialogue import device_state as module
from mynah.dialogue.allowance import DailyAllowance
from mynah.dialogue.device_state import SAVE_DELAY_S, SAVE_EVERY_S, DeviceState, KeptState, encoded
from mynah.dialogue.outbox import Outbox
from mynah.dialogue.patience import Profiles
from mynah.dialogue.reminders import Agenda
from tests.virtual_time import settle, virtual

LAMP, RADIO = "02:00:00:00:00:01", "02:00:00:00:00:02"
EPOCH = 1_800_000_000.0
TODAY = date(2027, 1, 15)


class Talker:
    """A conversation in which everything is heard at once."""

    quiet_s = 10.0

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, words: str, on_done: Callable[[bool], None] | None = None) -> None:
        self.said.append(words)
        if on_done is not None:
            on_done(True)


class House:
    """A server's memory of devices: from its start to its stop, with a wall clock that goes on in between."""

    def __init__(self, path: Path, slept_s: float = 0.0, today: date = TODAY, limit: int = 1000) -> None:
        loop = asyncio.get_running_loop()
        self.path = path
        self.here: dict[str, Talker] = {}
        self.outbox = Outbox(self.here.get)
        self.agenda = Agenda(self.outbox.announce, wall=lambda: EPOCH + slept_s + loop.time())
        self.profiles = Profiles()
        self.allowance = DailyAllowance(limit, lambda: today)
        self.state = DeviceState(path, self.agenda, self.profiles, self.allowance)
        self.state.start()

    def stop(self) -> None:
        """End as the server does."""
        self.agenda.close()
        self.outbox.close()
        self.state.stop()
        self.state.close()

    def connect(self, device_id: str = LAMP) -> list[str]:
        talker = self.here[device_id] = Talker()
        self.outbox.hand_over(device_id)
        return talker.said


class Disk:
    """Takes the place of the file, and tells when it was written to."""

    def __init__(self, path: Path, loss: str) -> None:
        self.path = path
        self.loss = loss
        self.writes: list[tuple[float, KeptState]] = []

    def save(self, content: bytes) -> None:
        kept = msgspec.json.decode(content, type=KeptState)
        self.writes.append((asyncio.get_running_loop().time(), kept))

    def close(self) -> None:
        pass


@pytest.fixture
def disks(monkeypatch: pytest.MonkeyPatch) -> list[Disk]:
    made: list[Disk] = []

    def make(path: Path, loss: str) -> Disk:
        made.append(Disk(path, loss))
        return made[-1]

    monkeypatch.setattr(module, "LatestFile", make)
    return made


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{level} {message}")
    yield lines
    logger.remove(sink)


# ---------------------------------------------------------------- when it is written


@virtual
async def test_changes_in_a_row_are_written_together(tmp_path: Path, disks: list[Disk]) -> None:
    house = House(tmp_path / "state.json")
    began = asyncio.get_running_loop().time()
    for number in range(5):
        house.agenda.add(LAMP, 600, f"number {number}")
        await asyncio.sleep(SAVE_DELAY_S / 10)
    await asyncio.sleep(SAVE_DELAY_S)
    ((at, kept),) = disks[0].writes
    assert at == pytest.approx(began + SAVE_DELAY_S), "counted from the first: a steady stream is written too"
    assert [reminder.text for reminder in kept.reminders] == [f"number {n}" for n in range(5)]


@virtual
async def test_a_reminder_that_ends_is_written_too(tmp_path: Path, disks: list[Disk]) -> None:
    house = House(tmp_path / "state.json")
    house.connect()
    cancelled = house.agenda.add(LAMP, 600, "cancelled")
    house.agenda.add(LAMP, 60, "heard")
    await asyncio.sleep(10)
    house.agenda.cancel(LAMP, cancelled.id)
    await asyncio.sleep(60)
    assert [[reminder.text for reminder in kept.reminders] for _, kept in disks[0].writes] == [
        ["cancelled", "heard"],
        ["heard"],
        [],
    ]


@virtual
async def test_what_nobody_announces_is_written_now_and_then(tmp_path: Path, disks: list[Disk]) -> None:
    house = House(tmp_path / "state.json")
    began = asyncio.get_running_loop().time()
    await asyncio.sleep(1)
    house.profiles.of(LAMP).paused(700)
    house.allowance.spend(LAMP, 100)
    await asyncio.sleep(SAVE_EVERY_S)
    ((at, kept),) = disks[0].writes
    assert at == pytest.approx(began + SAVE_EVERY_S)
    assert set(kept.pauses) == {LAMP}
    assert kept.spent is not None
    assert kept.spent.chars == {LAMP: 100}


@virtual
async def test_nothing_is_written_when_nothing_has_changed(tmp_path: Path, disks: list[Disk]) -> None:
    house = House(tmp_path / "state.json")
    house.profiles.of(LAMP).paused(700)
    await asyncio.sleep(10 * SAVE_EVERY_S)
    assert len(disks[0].writes) == 1
    house.profiles.of(LAMP).paused(900)
    await asyncio.sleep(2 * SAVE_EVERY_S)
    assert len(disks[0].writes) == 2
    house.stop()
    assert len(disks[0].writes) == 2


@virtual
async def test_the_steady_rhythm_goes_on_after_a_change(tmp_path: Path, disks: list[Disk]) -> None:
    house = House(tmp_path / "state.json")
    for round_ in range(1, 4):
        house.agenda.add(LAMP, 100_000, "later")
        await asyncio.sleep(SAVE_DELAY_S + 1)
        house.allowance.spend(LAMP, 1)
        await asyncio.sleep(SAVE_EVERY_S + 1)
        assert len(disks[0].writes) == 2 * round_


@virtual
async def test_stopping_writes_a_last_time_and_no_more(tmp_path: Path, disks: list[Disk]) -> None:
    house = House(tmp_path / "state.json")
    house.agenda.add(LAMP, 600, "soon")
    house.stop()
    ((_, kept),) = disks[0].writes
    assert [reminder.text for reminder in kept.reminders] == ["soon"]
    house.allowance.spend(LAMP, 1)
    await asyncio.sleep(2 * SAVE_EVERY_S)
    assert len(disks[0].writes) == 1


@virtual
async def test_the_loop_goes_on_while_much_is_written(tmp_path: Path, disks: list[Disk]) -> None:
    house = House(tmp_path / "state.json")
    for number in range(1000):
        device_id = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
        house.agenda.add(device_id, 600, "The tea is ready.")
        house.profiles.of(device_id).paused(700)
        house.allowance.spend(device_id, 100)
    await asyncio.sleep(SAVE_DELAY_S)
    turns = 0
    while not disks[0].writes:
        await asyncio.sleep(0)
        turns += 1
    assert turns > 3 * 1000 / module._PIECE
    ((_, kept),) = disks[0].writes
    assert len(kept.reminders) == len(kept.pauses) == 1000
    assert kept.spent is not None
    assert len(kept.spent.chars) == 1000


@virtual
async def test_what_changes_while_it_is_written_is_written_next(tmp_path: Path, disks: list[Disk]) -> None:
    house = House(tmp_path / "state.json")
    for number in range(18):
        house.agenda.add(f"02:00:00:00:00:{number:02x}", 600, "early")
    await asyncio.sleep(SAVE_DELAY_S)
    await asyncio.sleep(0)
    assert not disks[0].writes
    house.agenda.add(LAMP, 600, "late")
    await settle()
    assert [{reminder.text for reminder in kept.reminders} for _, kept in disks[0].writes] == [{"early"}]
    await asyncio.sleep(SAVE_DELAY_S)
    await settle()
    assert len(disks[0].writes) == 2
    assert "late" in {reminder.text for reminder in disks[0].writes[1][1].reminders}


@virtual
async def test_stopping_in_the_midst_of_writing_writes_everything(tmp_path: Path, disks: list[Disk]) -> None:
    house = House(tmp_path / "state.json")
    for number in range(500):
        house.agenda.add(f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}", 600, "soon")
    await asyncio.sleep(SAVE_DELAY_S)
    await asyncio.sleep(0)
    house.stop()
    await settle()
    ((_, kept),) = disks[0].writes
    assert len(kept.reminders) == 500


# ---------------------------------------------------------------- over a restart


@virtual
async def test_everything_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "data" / "state.json"
    house = House(path)
    house.agenda.add(LAMP, 600, "The tea is ready.", "tea")
    house.profiles.of(RADIO).paused(700)
    house.allowance.spend(RADIO, 400)
    learnt = house.profiles.snapshot()
    await asyncio.sleep(100)
    house.stop()

    again = House(path, slept_s=200)
    (reminder,) = again.agenda.running(LAMP)
    assert (reminder.text, reminder.label) == ("The tea is ready.", "tea")
    assert reminder.due_in_s == pytest.approx(300, abs=0.01)
    assert again.profiles.snapshot() == learnt
    assert again.allowance.left(RADIO) == 600
    assert again.allowance.left(LAMP) == 1000
    said = again.connect()
    await asyncio.sleep(299)
    assert said == []
    await asyncio.sleep(2)
    assert said == ["The tea is ready."]
    again.stop()


@virtual
async def test_what_became_due_meanwhile_is_said_with_how_late_it_is(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    house = House(path)
    house.agenda.add(LAMP, 60, "The tea is ready.")
    house.stop()
    again = House(path, slept_s=3 * 60 + 60)
    await settle()
    (said,) = again.connect()
    await settle()
    assert said == "This was due 3 minutes ago: The tea is ready."
    again.stop()
    assert msgspec.json.decode(path.read_bytes(), type=KeptState).reminders == ()


@virtual
async def test_what_is_due_and_was_not_heard_survives_as_well(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    house = House(path)
    house.agenda.add(LAMP, 10, "The tea is ready.")
    await asyncio.sleep(70)
    house.stop()
    again = House(path)
    await settle()
    assert again.connect() == ["This was due 1 minute ago: The tea is ready."]
    again.stop()


@virtual
async def test_another_day_begins_with_a_full_allowance(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    house = House(path)
    house.allowance.spend(LAMP, 400)
    house.stop()
    again = House(path, today=date(2027, 1, 16))
    assert again.allowance.left(LAMP) == 1000
    again.stop()


@virtual
async def test_many_restarts_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    house = House(path)
    house.agenda.add(LAMP, 100_000, "much later")
    house.profiles.of(LAMP).paused(700)
    house.stop()
    first = msgspec.json.decode(path.read_bytes(), type=KeptState)
    for _ in range(5):
        House(path).stop()
    last = msgspec.json.decode(path.read_bytes(), type=KeptState)
    assert last.pauses == first.pauses
    assert [r.due_at for r in last.reminders] == pytest.approx([r.due_at for r in first.reminders], abs=0.01)


@virtual
async def test_devices_without_a_name_leave_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    house = House(path)
    house.agenda.add("anonymous-1f", 600, "nobody can come back for this")
    house.profiles.of("anonymous-1f").paused(700)
    house.stop()
    kept = msgspec.json.decode(path.read_bytes(), type=KeptState)
    assert (kept.reminders, kept.pauses) == ((), {})


# ---------------------------------------------------------------- files that are no good


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"reminders": 7}',
        b'{"reminders": [{"device_id": "x"}]}',
        b'{"pauses": {"x": {"telepathy": 1}}}',
        b'{"spent": {"day": "yesterday", "chars": {}}}',
    ],
)
@virtual
async def test_a_damaged_file_is_put_aside(tmp_path: Path, log: list[str], content: bytes) -> None:
    path = tmp_path / "device-state.json"
    path.write_bytes(content)
    house = House(path)
    aside = tmp_path / "device-state.damaged"
    assert aside.read_bytes() == content, "somebody may want to repair it"
    (warning,) = [line for line in log if line.startswith("WARNING")]
    assert str(path) in warning
    assert aside.name in warning
    house.agenda.add(LAMP, 600, "a new one")
    house.stop()
    again = House(path)
    assert again.agenda.count(LAMP) == 1
    again.stop()


@virtual
async def test_a_file_that_cannot_be_read_is_told_and_the_server_starts(
    tmp_path: Path, log: list[str]
) -> None:
    path = tmp_path / "device-state.json"
    path.mkdir()
    house = House(path)
    house.agenda.add(LAMP, 600, "not kept")
    house.stop()
    assert [line.split()[0] for line in log] == ["WARNING"], "what cannot be read is not overwritten"
    assert "cannot be read" in log[0]


@virtual
async def test_no_file_is_nothing_to_talk_about(tmp_path: Path, log: list[str]) -> None:
    House(tmp_path / "data" / "state.json").stop()
    assert log == []


_NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**12), 10**12).map(float)
_REMINDERS = st.builds(
    dict,
    device_id=st.text(max_size=30),
    due_at=_NUMBERS,
    text=st.text(max_size=20),
    label=st.text(max_size=5),
)
_PROFILES = st.fixed_dictionaries(
    dict.fromkeys(("complete_ms", "unsure_ms", "incomplete_ms"), _NUMBERS) | {"seen": st.integers(-5, 50)}
)
_STATES = st.fixed_dictionaries(
    {
        "reminders": st.lists(_REMINDERS, max_size=5),
        "pauses": st.dictionaries(st.text(max_size=20), _PROFILES, max_size=5),
        "spent": st.none()
        | st.fixed_dictionaries(
            {
                "day": st.just(TODAY.isoformat()),
                "chars": st.dictionaries(st.text(max_size=20), st.integers(-(10**9), 10**9), max_size=5),
            }
        ),
    }
)


@given(_STATES)
def test_a_file_with_odd_numbers_does_no_harm(
    tmp_path_factory: pytest.TempPathFactory, state: object
) -> None:
    """Somebody may have edited it, or the clock was set meanwhile."""

    @virtual
    async def start(path: Path) -> None:
        house = House(path)
        await asyncio.sleep(SAVE_EVERY_S + 1)
        house.stop()
        House(path).stop()

    path = tmp_path_factory.mktemp("odd") / "state.json"
    path.write_bytes(msgspec.json.encode(state))
    start(path)
    assert not path.with_suffix(".damaged").exists()


@given(_STATES)
def test_the_pieces_make_the_file(state: object) -> None:
    kept = msgspec.convert(state, KeptState, strict=False)
    for piece in (1, 2, 100):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_PIECE", piece)
            assert b"".join(encoded(kept)) == msgspec.json.encode(kept) + b"\n"
