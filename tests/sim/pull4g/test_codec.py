"""What is sent and played."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mynah.errors import ConfigError
from mynah.sim.pull4g.codec import Decoder, Form, encoded, seconds, words
from mynah.wire.pull4g import Codec

from ..scripted import tone

FORMS = [Form(codec, rate) for codec, rate in itertools.product(Codec, (8000, 16000, 24000))]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.codec} {form.rate}")
def test_pieces_of_60_ms_that_can_be_heard_again(form: Form) -> None:
    pieces = encoded(tone(0.6), form)
    assert len(pieces) in {10, 11}
    assert all(seconds(piece, form) == pytest.approx(0.06, abs=0.001) for piece in pieces[:9])
    decoder = Decoder(form)
    heard = np.frombuffer(b"".join(decoder.decode(piece) for piece in pieces), "<i2")
    assert len(heard) == pytest.approx(0.6 * form.rate, rel=0.11)
    spectrum = np.abs(np.fft.rfft(heard[: form.rate // 2]))
    assert np.argmax(spectrum) * 2 == pytest.approx(300, abs=4), "it is the tone"


def test_pcm_may_be_cut_anywhere() -> None:
    pcm, decoder = tone(0.1), Decoder(Form(Codec.PCM))
    assert b"".join(decoder.decode(pcm[at : at + 7]) for at in range(0, len(pcm), 7)) == pcm


def test_broken_packets_are_silent() -> None:
    form = Form(Codec.OPUS)
    assert seconds(b"\x03", form) == 0
    assert Decoder(form).decode(b"\x03") == b""


def test_words_for_who_looks_on() -> None:
    said = words(tone(0.1), Form(Codec.ADPCM), "a tone")
    assert [len(pcm) for pcm in said.pcm] == [1920, 1920]
    assert [len(piece) for piece in said.pieces] == [480, 480]
    assert said.text == "a tone"


def test_opus_needs_frames() -> None:
    with pytest.raises(ConfigError, match="Opus needs framed mode"):
        Form(Codec.OPUS, framed=False).check()
    assert Form(Codec.ADPCM, framed=False).check().codec is Codec.ADPCM
