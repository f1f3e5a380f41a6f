"""Opus, PCM and time: decoding for all sessions at once on the way up, encoding and pacing on the way down."""
