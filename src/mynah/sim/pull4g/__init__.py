"""A device behind a 4G modem: it speaks the pull protocol, and goes on where it was when its link was cut."""
