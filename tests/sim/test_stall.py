import asyncio
import time

from mynah.sim.stall import StallDetector


async def test_a_busy_loop_is_noticed_before_and_after_the_beat() -> None:
    detector = StallDetector()
    assert not detector.stalled(time.monotonic())
    detector.start()
    detector.start()
    time.sleep(0.06)
    assert detector.stalled(time.monotonic())  # the beat is overdue
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert detector.stalled(time.monotonic())  # the beat has just come, late
    detector.stop()
    detector.stop()
    assert not detector.stalled(time.monotonic())


async def test_an_idle_loop_does_not_stall() -> None:
    detector = StallDetector()
    detector.start()
    calm = 0
    for _ in range(50):
        await asyncio.sleep(0.005)
        calm += not detector.stalled(time.monotonic())
    detector.stop()
    assert calm >= 25  # all of them, unless this machine is very busy


async def test_stopping_leaves_nothing_behind() -> None:
    detector = StallDetector()
    detector.start()
    detector.stop()
    await asyncio.sleep(0.05)
    assert not detector.stalled(time.monotonic() + 10)
