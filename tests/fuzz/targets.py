"""What is fuzzed: all targets in one table."""

from __future__ import annotations

from tests.fuzz import http_targets, pull_targets, speech_targets, wire_targets
from tests.fuzz.target import TARGETS, Target

__all__ = ["TARGETS", "Target", "http_targets", "pull_targets", "speech_targets", "wire_targets"]
