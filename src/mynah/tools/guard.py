"""The wall between Mynah and code that others wrote: whatever a plugin raises stays on its side."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType


class contained:  # noqa: N801 - used like a keyword: with contained(report)
    """Run foreign code: hand what it raises to ``report`` instead of raising it.

    SystemExit is contained as well, since a plugin that calls ``sys.exit`` must not stop the server.
    Cancelling and KeyboardInterrupt pass. This is the one place in this room that catches everything.
    """

    def __init__(self, report: Callable[[BaseException], None]) -> None:
        self._report = report

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception | SystemExit):
            return False
        self._report(error)
        return True
