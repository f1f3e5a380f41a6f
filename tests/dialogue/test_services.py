"""What the settings of a conversation make of a device that fell silent, and of patience."""

from __future__ import annotations

import msgspec
import pytest

from mynah.dialogue.events import Fell
from mynah.dialogue.services import DialogueSettings
from mynah.dialogue.turn import TurnPolicy
from mynah.providers.turn.guard import GuardedTurnDetector
from mynah.texts import variants
from tests.fakes import DEVICE_ID, Stage
from tests.virtual_time import virtual


@pytest.mark.parametrize("language", ["en", "zh"])
def test_who_fell_silent_is_told_goodbye_in_the_language_spoken_last(language: str) -> None:
    settings = DialogueSettings("en", TurnPolicy())
    fell = settings.fell(language)
    assert fell.farewell in variants("farewell_idle", language)
    assert not fell.asked


def test_the_farewell_may_be_left_out_or_asked_of_the_model() -> None:
    assert DialogueSettings("en", TurnPolicy(), farewell=False, farewell_prompt="x").fell("en") == Fell("")
    settings = DialogueSettings("en", TurnPolicy(), farewell_prompt="Say goodbye.")
    assert settings.fell("zh") == Fell("Say goodbye.", asked=True)


@virtual
async def test_patience_follows_the_settings_and_the_device() -> None:
    stage = Stage()
    services = stage.services
    assert services.patience(DEVICE_ID).base_ms == services.vad.min_silence_ms == 200
    for _ in range(20):
        services.profiles.of(DEVICE_ID).paused(700)
    assert services.patience(DEVICE_ID).base_ms > 400
    assert services.patience("02:00:00:00:00:09").base_ms == 200
    settings = msgspec.structs.replace(services.settings, max_silence_ms=300)
    assert msgspec.structs.replace(services, settings=settings).patience(DEVICE_ID).base_ms == 300
    settings = msgspec.structs.replace(services.settings, adaptive=False)
    assert msgspec.structs.replace(services, settings=settings).patience(DEVICE_ID).base_ms == 200
    await stage.end()


@virtual
async def test_the_threshold_is_that_of_the_turn_detector() -> None:
    class Detector:
        threshold = 0.9

    stage = Stage()
    detector = Detector()
    services = msgspec.structs.replace(stage.services, turn_detector=detector)
    # 0.6 is "finished" to most, not to this one.
    assert services.patience(DEVICE_ID).silence_ms("It is five.", "en", 0.6) > stage.services.patience(
        DEVICE_ID
    ).silence_ms("It is five.", "en", 0.6)
    assert not isinstance(detector, GuardedTurnDetector)
    await stage.end()
