"""Speech recognisers, one file per vendor."""
