"""What can be seen of a server from outside: log lines, metrics, traces.

The engine calls no metrics: it tells a `mynah.dialogue.record.SessionObserver`, and what is counted or measured hangs
behind it. Only ``app`` imports this room. What needs a package of its own (`mynah.observe.metrics`,
`mynah.observe.traces`) is imported when it is switched on.
"""

from mynah.observe.logs import TurnLog, configure, redactor, selected_module_code
from mynah.observe.observation import Observation

__all__ = ["Observation", "TurnLog", "configure", "redactor", "selected_module_code"]
