"""Built-in plugins; each file registers its functions."""
