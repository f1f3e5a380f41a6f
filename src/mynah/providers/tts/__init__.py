"""Voices, one file per vendor."""
