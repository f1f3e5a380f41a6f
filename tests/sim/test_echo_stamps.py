from mynah.sim.echo_stamps import MAX_KEPT, EchoStamps


def test_the_oldest_stamp_goes_out_first() -> None:
    stamps = EchoStamps()
    assert stamps.take() == 0
    for stamp in (7, 0, 8):  # 0: a sound of the device itself
        stamps.played(stamp)
    assert [stamps.take() for _ in range(3)] == [7, 8, 0]


def test_too_many_pending_stamps_are_not_trusted() -> None:
    stamps = EchoStamps()
    for stamp in (1, 2, 3, 4, 5):
        stamps.played(stamp)
    assert [stamps.take() for _ in range(6)] == [0, 0, 3, 4, 5, 0]


def test_a_reset_forgets() -> None:
    stamps = EchoStamps()
    stamps.played(1)
    stamps.clear()
    assert stamps.take() == 0


def test_no_more_are_kept_than_can_be_of_use() -> None:
    stamps = EchoStamps()
    for stamp in range(1, MAX_KEPT + 10):
        stamps.played(stamp)
    taken = [stamps.take() for _ in range(MAX_KEPT + 1)]
    assert taken[-4:] == [MAX_KEPT + 7, MAX_KEPT + 8, MAX_KEPT + 9, 0]
