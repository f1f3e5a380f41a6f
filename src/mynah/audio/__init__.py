"""Opus, PCM and time: decoding for all sessions at once going up, encoding and pacing going down."""
