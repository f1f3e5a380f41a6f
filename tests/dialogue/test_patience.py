"""How much silence ends an utterance: learning, words and detector."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.dialogue.completeness import Completeness
from mynah.dialogue.patience import (
    LONGEST_PAUSE_MS,
    SHORTEST_MS,
    SURE_SHARE,
    UNFINISHED_MS,
    Patience,
    PauseProfile,
    Profiles,
)

C, U, I = Completeness.COMPLETE, Completeness.UNSURE, Completeness.INCOMPLETE  # noqa: E741
CONFIGURED, LONGEST = 200, 1500
COMPLETE_TEXT, UNSURE_TEXT, INCOMPLETE_TEXT = "what time is it", "turn on the light", "turn on the"

words = st.sampled_from(Completeness)
happenings = st.lists(
    st.one_of(
        st.tuples(st.just("paused"), st.floats(-1e4, 1e4), words),
        st.tuples(st.just("cut_in"), st.floats(-1e4, 1e4), words),
        st.tuples(st.just("ended"), st.just(0.0), words),
    ),
    max_size=60,
)


def limit(profile: PauseProfile, said: Completeness = U) -> int:
    return profile.limit_ms(CONFIGURED, LONGEST, said)


def taught(pauses_ms: list[float]) -> PauseProfile:
    profile = PauseProfile()
    for pause in pauses_ms:
        profile.paused(pause)
    return profile


# -- the profile


def test_nothing_learnt_means_what_was_configured() -> None:
    assert [limit(PauseProfile(), said) for said in Completeness] == [CONFIGURED] * 3
    assert PauseProfile().empty


def test_the_silence_comes_to_fit_most_of_a_users_pauses() -> None:
    profile = taught([400, 600, 500, 550, 450] * 6)
    assert 550 <= limit(profile) <= 750


def test_brief_pauses_need_no_more_than_was_configured() -> None:
    assert limit(taught([90, 100, 110] * 10)) <= CONFIGURED + 20


def test_the_first_pauses_teach_more_than_the_later_ones() -> None:
    assert limit(taught([500])) > 450
    settled = taught([200] * 20)
    before = limit(settled)
    settled.paused(500)
    assert limit(settled) - before < (limit(taught([500])) - CONFIGURED) / 2


def test_one_outlier_changes_little_and_is_forgotten() -> None:
    profile = taught([250] * 20)
    before = limit(profile)
    profile.paused(4000)
    assert before < limit(profile) <= before + 150
    for _ in range(20):
        profile.paused(250)
    assert limit(profile) < before + 30


def test_one_outlier_at_the_very_beginning_is_forgotten_too() -> None:
    profile = taught([4000])
    assert limit(profile) <= 600
    for _ in range(10):
        profile.paused(250)
    assert limit(profile) < 420


def test_being_cut_off_teaches_more_than_a_pause() -> None:
    pauses, cut = taught([300] * 12), taught([300] * 12)
    pauses.paused(600)
    cut.cut_in(400, 600)
    assert limit(cut) > limit(pauses)


def test_being_cut_off_again_and_again_always_leads_to_more_patience() -> None:
    profile = PauseProfile()
    for _ in range(8):
        before = limit(profile)
        profile.cut_in(before)
        assert limit(profile) > before or before == LONGEST
    assert limit(profile) > 600


def test_patience_that_is_not_needed_is_lost_slowly() -> None:
    profile = taught([700] * 10)
    before = limit(profile)
    profile.ended()
    assert before - 10 <= limit(profile) < before
    for _ in range(70):
        profile.ended()
    assert (
        CONFIGURED + 0.3 * (before - CONFIGURED) < limit(profile) < CONFIGURED + 0.7 * (before - CONFIGURED)
    )
    for _ in range(1000):
        profile.ended()
    assert limit(profile) <= CONFIGURED + 1


def test_ending_teaches_nothing_where_nothing_is_known() -> None:
    profile = PauseProfile()
    profile.ended()
    assert profile.empty


def test_a_pause_after_unfinished_words_says_nothing_about_the_end_of_finished_ones() -> None:
    profile = PauseProfile()
    for _ in range(10):
        profile.paused(900, I)
    assert limit(profile, I) > 900
    assert limit(profile, U) == limit(profile, C) == CONFIGURED


def test_a_slow_speaker_is_slow_everywhere_but_less_where_it_was_not_seen() -> None:
    profile = PauseProfile()
    for _ in range(3):
        profile.paused(800, U)
    assert CONFIGURED < limit(profile, C) < limit(profile, U)
    assert limit(profile, U) >= 800


@pytest.mark.parametrize("pause", [0, -5, LONGEST_PAUSE_MS + 1, float("nan"), float("inf")])
def test_what_is_no_pause_teaches_nothing(pause: float) -> None:
    profile = PauseProfile()
    profile.paused(pause)
    assert profile.empty
    assert profile.plausible


@given(happenings, st.integers(32, 5000), st.integers(32, 10000))
def test_the_limit_is_always_between_what_was_configured_and_the_longest(
    happened: list[tuple[str, float, Completeness]], configured: int, longest: int
) -> None:
    profile = PauseProfile()
    for kind, ms, said in happened:
        if kind == "paused":
            profile.paused(ms, said)
        elif kind == "cut_in":
            profile.cut_in(ms, ms * 1.5, said)
        else:
            profile.ended()
        assert profile.plausible
    for said in Completeness:
        assert configured <= profile.limit_ms(configured, longest, said) <= max(configured, longest)


@given(happenings, words, st.floats(1, LONGEST_PAUSE_MS), st.floats(0, 1000))
def test_a_longer_pause_never_teaches_less(
    happened: list[tuple[str, float, Completeness]], said: Completeness, pause: float, more: float
) -> None:
    one, other = PauseProfile(), PauseProfile()
    for profile in (one, other):
        for kind, ms, before in happened:
            if kind == "paused":
                profile.paused(ms, before)
    one.paused(pause, said)
    other.paused(min(pause + more, LONGEST_PAUSE_MS), said)
    assert other.limit_ms(1, 10_000, said) >= one.limit_ms(1, 10_000, said)


# -- patience


def patience(profile: PauseProfile | None = None, **options: float) -> Patience:
    return Patience(profile or PauseProfile(), CONFIGURED, LONGEST, **options)  # type: ignore[arg-type]


def test_words_that_need_more_to_follow_are_waited_for() -> None:
    waiting = patience()
    assert waiting.base_ms == CONFIGURED
    assert waiting.silence_ms(UNSURE_TEXT, "en") == CONFIGURED
    assert waiting.silence_ms(COMPLETE_TEXT, "en") == CONFIGURED
    assert waiting.silence_ms(INCOMPLETE_TEXT, "en") == UNFINISHED_MS
    assert waiting.silence_ms("我想听", "zh") == UNFINISHED_MS


def test_nothing_is_waited_for_longer_than_the_longest() -> None:
    assert Patience(PauseProfile(), 200, 700).silence_ms(INCOMPLETE_TEXT, "en") == 700
    assert Patience(PauseProfile(), 900, 700).silence_ms(INCOMPLETE_TEXT, "en", 0.0) == 900
    assert Patience(PauseProfile(), 600, 5000).silence_ms(INCOMPLETE_TEXT, "en") == 1200


def test_a_detector_that_is_sure_shortens_the_silence_and_never_below_the_shortest() -> None:
    assert patience().silence_ms(UNSURE_TEXT, "en", 1.0) == SHORTEST_MS
    slow = Patience(PauseProfile(), 800, 1500)
    assert slow.silence_ms(UNSURE_TEXT, "en", 1.0) == SURE_SHARE * 800
    assert slow.silence_ms(UNSURE_TEXT, "en", 0.5) == 800
    assert Patience(PauseProfile(), 100, 1500).silence_ms(UNSURE_TEXT, "en", 1.0) == 100


def test_a_detector_does_not_shorten_what_the_words_leave_open() -> None:
    assert patience().silence_ms(INCOMPLETE_TEXT, "en", 1.0) == UNFINISHED_MS


def test_a_detector_that_hears_more_to_come_lengthens_the_silence() -> None:
    waiting = patience()
    assert waiting.silence_ms(UNSURE_TEXT, "en", 0.0) == LONGEST
    assert CONFIGURED < waiting.silence_ms(UNSURE_TEXT, "en", 0.45) < 600
    assert waiting.silence_ms(INCOMPLETE_TEXT, "en", 0.0) == LONGEST


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_the_surer_the_detector_the_shorter_the_silence(threshold: float) -> None:
    for text in (COMPLETE_TEXT, UNSURE_TEXT, INCOMPLETE_TEXT):
        silences = [patience(threshold=threshold).silence_ms(text, "en", p / 20) for p in range(21)]
        assert silences == sorted(silences, reverse=True)
        assert all(SHORTEST_MS <= silence <= LONGEST for silence in silences)


def test_the_user_s_pauses_change_how_long_is_waited() -> None:
    profile = PauseProfile()
    waiting = patience(profile)
    for _ in range(5):
        waiting.silence_ms(UNSURE_TEXT, "en")
        waiting.paused(700)
    assert waiting.base_ms >= 700
    assert patience(profile).base_ms == waiting.base_ms  # another session of the same device


def test_what_is_learnt_is_learnt_about_the_words_before_the_pause() -> None:
    profile = PauseProfile()
    waiting = patience(profile)
    waiting.silence_ms(INCOMPLETE_TEXT, "en")
    waiting.paused(900)
    assert waiting.base_ms == CONFIGURED
    assert profile.incomplete_ms > CONFIGURED
    waiting.paused(600)  # of this one the words are not known
    assert waiting.base_ms > CONFIGURED


def test_who_goes_on_after_the_end_gets_more_time() -> None:
    waiting = patience()
    waiting.cut_in()
    first = waiting.base_ms
    assert first > CONFIGURED
    waiting.cut_in(900)
    assert waiting.base_ms > first
    before = waiting.base_ms
    waiting.ended()
    assert waiting.base_ms < before


def test_being_cut_off_counts_from_what_was_really_waited() -> None:
    waiting = patience()
    assert waiting.silence_ms(UNSURE_TEXT, "en", 0.0) == LONGEST
    waiting.cut_in()
    assert waiting.silence_ms(UNSURE_TEXT, "en") == LONGEST


def test_without_adaptation_everything_is_as_configured() -> None:
    profile = PauseProfile()
    waiting = patience(profile, adaptive=False)
    waiting.paused(900)
    waiting.cut_in(900)
    waiting.ended()
    assert profile.empty
    assert waiting.base_ms == CONFIGURED
    assert waiting.silence_ms(INCOMPLETE_TEXT, "en", 0.0) == CONFIGURED


# -- profiles


def test_a_device_finds_its_profile_again() -> None:
    profiles = Profiles()
    profiles.of("a").paused(700)
    assert limit(profiles.of("a")) > CONFIGURED
    assert limit(profiles.of("b")) == CONFIGURED


@pytest.mark.parametrize("nobody", ["", "anonymous-7f00"])
def test_nothing_is_kept_about_a_device_without_a_name(nobody: str) -> None:
    profiles = Profiles()
    profiles.of(nobody).paused(700)
    assert profiles.of(nobody).empty
    assert len(profiles) == 0


def test_those_not_heard_of_for_longest_make_room() -> None:
    profiles = Profiles(max_devices=2)
    for device in ("a", "b"):
        profiles.of(device).paused(700)
    profiles.of("a")
    profiles.of("c").paused(700)
    assert set(profiles.snapshot()) == {"a", "c"}
    assert len(profiles) == 2


def test_profiles_survive_a_restart() -> None:
    profiles = Profiles()
    profiles.of("a").paused(700)
    profiles.of("b").cut_in(300, 900, I)
    profiles.of("nothing learnt")
    written = msgspec.json.encode(profiles.snapshot())
    later = Profiles()
    later.restore(msgspec.json.decode(written, type=dict[str, PauseProfile]))
    assert later.snapshot() == profiles.snapshot()
    assert list(later.snapshot()) == ["a", "b"]


def test_a_snapshot_does_not_change_afterwards() -> None:
    profiles = Profiles()
    profiles.of("a").paused(700)
    taken = profiles.snapshot()
    before = taken["a"].unsure_ms
    profiles.of("a").paused(2000)
    assert taken["a"].unsure_ms == before


def test_implausible_profiles_are_left_out() -> None:
    profiles = Profiles(max_devices=2)
    kept = PauseProfile(unsure_ms=600)
    profiles.of("here already").paused(700)
    profiles.restore(
        {
            "negative": PauseProfile(unsure_ms=-1),
            "endless": PauseProfile(complete_ms=float("inf")),
            "nothing": PauseProfile(incomplete_ms=float("nan")),
            "young": PauseProfile(unsure_ms=300, seen=-1),
            "": kept,
            "here already": PauseProfile(unsure_ms=1),
            "too many": kept,
            "kept": kept,
        }
    )
    assert set(profiles.snapshot()) == {"kept", "here already"}
    assert profiles.snapshot()["here already"].unsure_ms > 1


def test_restored_profiles_are_not_shared() -> None:
    outside = PauseProfile(unsure_ms=600)
    profiles = Profiles()
    profiles.restore({"a": outside})
    profiles.of("a").paused(2000)
    assert outside.unsure_ms == 600
