"""Turn taking, and what happens in a turn: listen, think, speak.."""
