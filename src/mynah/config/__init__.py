"""Settings: frozen, typed, documented field by field, read from layers.

`load` is for programs, `defaults` for tests. `Settings` is the tree of values.
"""

from mynah.config.display import masked, secret_values, settings_reference
from mynah.config.layers import is_secret_name
from mynah.config.loading import Problem, defaults, inspect, load
from mynah.config.model import Log, SelectedModule, Settings, Timeouts, Xiaozhi
from mynah.config.server import Auth, Limits, NamedToken, Server

__all__ = [
    "Auth",
    "Limits",
    "Log",
    "NamedToken",
    "Problem",
    "SelectedModule",
    "Server",
    "Settings",
    "Timeouts",
    "Xiaozhi",
    "defaults",
    "inspect",
    "is_secret_name",
    "load",
    "masked",
    "secret_values",
    "settings_reference",
]
