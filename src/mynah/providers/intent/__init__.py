"""How requests for tools are found; one file per way."""
