"""How many connections the operating system lets this process have: each is an open file."""

from __future__ import annotations

import resource
from typing import Final

from loguru import logger

OTHER_FILES: Final = 1000
"""Besides the devices: requests over HTTP, connections to services (up to three per talker), files."""
OTHER_SHARE: Final = 4
"""Of a small limit this part is left for them instead: a quarter."""

log = logger.bind(tag="websocket")


def fitting(wanted: int) -> int:
    """Return how many of ``wanted`` connections this process can have, and say so where it is fewer."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    fit = room(limit)
    if limit == resource.RLIM_INFINITY or wanted <= fit:
        return wanted
    log.warning(
        "server.limits.max_connections is {}, but only {} devices fit: this process may open {} files. Let it open {}: "
        "`ulimit -n {}` before the start, LimitNOFILE={} for systemd, `--ulimit nofile={}` for Docker",
        *(wanted, fit, limit, *[wanted + OTHER_FILES] * 4),
    )
    return fit


def room(limit: int) -> int:
    """Return how many connections fit into a limit of open files."""
    return limit - min(OTHER_FILES, limit // OTHER_SHARE)
