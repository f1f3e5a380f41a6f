"""Mynah: a self-hosted voice-assistant server for ESP32-class devices."""

__version__ = "0.1.0"
