"""The stage: which script the next request gets, and what was played."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import Any

from token_server.records import Played, Protocol
from token_server.scripts import ECHO, StreamScript


class Stage:
    """Hands out the scripts in turn, over all protocols, and keeps what was played."""

    def __init__(self) -> None:
        self.scripts: Sequence[StreamScript] = (StreamScript(),)
        self.played: list[Played] = []
        self.connections = 0

    def restart(self, scripts: Sequence[StreamScript]) -> None:
        """From the first of these scripts; what was played before is forgotten."""
        self.scripts, self.played = scripts, []

    def begin(
        self,
        protocol: Protocol,
        prompt: str,
        asked: dict[str, Any],
        identity: str,
        received_ns: int,
    ) -> tuple[StreamScript, Played]:
        """A request has come."""
        ordinal = len(self.played)
        played = Played(ordinal, protocol, prompt, asked, identity, received_ns)
        self.played.append(played)
        script = self.scripts[ordinal % len(self.scripts)]
        return script.answering(prompt, str(asked.get("model", ECHO))), played

    async def whole(self, answer: Awaitable[None], played: Played, gone: asyncio.Event) -> None:
        """Give an answer, or note that the client went away before its end.

        Raises:
            ConnectionError: it did, or the script broke the connection.
        """
        giving = asyncio.ensure_future(answer)
        leaving = asyncio.ensure_future(gone.wait())
        try:
            await asyncio.wait({giving, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if giving.done():
                await giving
                played.ended_ns = time.monotonic_ns()
            else:
                played.gone_ns = time.monotonic_ns()
                raise ConnectionAbortedError
        finally:
            giving.cancel()
            leaving.cancel()
