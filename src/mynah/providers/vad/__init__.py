"""Voice-activity detectors, one file per vendor."""
