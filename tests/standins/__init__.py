"""Stand-ins for services: real processes that speak a vendor's documented wire format, errors included."""
