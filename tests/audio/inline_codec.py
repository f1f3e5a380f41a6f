"""A codec pool for virtual time: a job is done when it is submitted, and its result comes in the next turn of the loop.

``held`` keeps jobs back, as threads do that have too much to do.
"""

from __future__ import annotations

import asyncio

from mynah.audio.codec_pool import CodecJob
from mynah.audio.opus import Effort


class InlineCodec:
    def __init__(self, effort: Effort = Effort.LIGHT) -> None:
        self.effort = effort
        self.submitted: list[float] = []
        """When each job was due."""
        self.held: list[CodecJob] | None = None

    hurried = False

    def submit(self, job: CodecJob, due: float) -> None:
        self.submitted.append(due)
        if self.held is not None:
            self.held.append(job)
            return
        self._do(job)

    def _do(self, job: CodecJob) -> None:
        job.work()
        asyncio.get_running_loop().call_soon(job.done)

    def hold(self) -> None:
        """Do nothing until `go_on`."""
        self.held = []

    def go_on(self) -> None:
        """Do what was held back, and what comes."""
        jobs, self.held = self.held or [], None
        for job in jobs:
            self._do(job)
