"""A server that speaks the OpenAI chat-completions API from a script; the model's name chooses the scenario.

    python -m tests.standins.openai_server --port 0        prints the port it got, then serves until it is killed

``POST /v1/chat/completions`` plays the scenario (`openai_scenarios`), ``GET /v1/seen?key=KEY`` tells what became of
the requests made with an API key.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections import Counter, defaultdict

from aiohttp import web

from tests.standins.openai_scenarios import SCENARIOS, Reply, refuse


class Server:
    """The HTTP side."""

    def __init__(self) -> None:
        self._seen: dict[str, Counter[str]] = defaultdict(Counter)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.complete)
        app.router.add_get("/v1/seen", self.seen)
        return app

    async def seen(self, request: web.Request) -> web.Response:
        return web.json_response(self._seen[request.query["key"]])

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        seen = self._seen[key]
        name, argument = re.fullmatch(r"(.*?)(?:-(\d+))?", body["model"]).groups()  # type: ignore[union-attr]
        play = SCENARIOS.get(name)
        if play is None:
            return refuse(404, f"The model `{body['model']}` does not exist", "model_not_found")
        seen[body["model"]] += 1
        try:
            response = await play(Reply(request, body, float(argument or 0), seen[body["model"]]))
        except (ConnectionError, asyncio.CancelledError):
            seen["disconnected"] += 1
            raise
        seen["finished"] += 1
        return response


async def serve(port: int) -> None:
    # A handler is cancelled when its client goes: that is how we see that it went.
    runner = web.AppRunner(Server().app(), handler_cancellation=True, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    try:
        asyncio.run(serve(parser.parse_args().port))
    except KeyboardInterrupt:
        sys.exit(0)
