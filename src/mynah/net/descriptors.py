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


def raise_limit() -> None:
    """Let this process open as many files as it may: what it is given at first is often 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError) as error:  # macOS has no limit and does not let anybody have none
        log.debug("the limit of open files stays at {}: {}", soft, error)


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
