"""The front end as it runs: in a thread of its own, from entering to leaving a `with`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from harness.errors import ServerError
from harness.serving.openai.app import GeneratingModel, OpenAIFrontEnd
from harness.serving.openai.triton import SILENCE_S, GenerationClient

LOOPBACK = "127.0.0.1"
GRACE_S = 10.0
"""How long streams in flight may go on when the server is stopped."""


class OpenAIServer:
    """OpenAI's API over HTTP/1.1; a context manager.

    Leaving it takes no more requests, lets those in flight end, for `grace_s` at most, and cancels
    what is left.

    Args:
        models: that it offers; they are loaded on the Triton.
        grpc: the Triton's address, host:port.
        host: to listen on.
        port: to listen on; 0 is a free one.
        grace_s: for requests in flight at the end.
        silence_s: how long the next event of a model's stream is waited for.
    """

    address: str
    """The address that it listens on, as host:port."""

    def __init__(
        self,
        models: Sequence[GeneratingModel],
        grpc: str,
        *,
        host: str = LOOPBACK,
        port: int = 0,
        grace_s: float = GRACE_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._models = {one.name: one for one in models}
        self._grpc, self._place = grpc, (host, port)
        self._grace_s, self._silence_s = grace_s, silence_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="openai", daemon=True)
        self._runner: web.AppRunner | None = None
        self._client: GenerationClient | None = None

    def __enter__(self) -> Self:
        """Start to listen.

        Raises:
            ServerError: the address cannot be listened on.
        """
        self._thread.start()
        try:
            self._run(self._open())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    @property
    def url(self) -> str:
        """The base URL that OpenAI's clients are given."""
        return f"http://{self.address}/v1"

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop(self) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        self._client = GenerationClient(self._grpc, silence_s=self._silence_s)
        frontend = OpenAIFrontEnd(self._client, self._models, int(time.time()))
        await frontend.read_templates()
        self._runner = web.AppRunner(
            frontend.application,
            access_log=None,
            handler_cancellation=True,  # a client that goes away ends its request on Triton
            shutdown_timeout=self._grace_s,
        )
        await self._runner.setup()
        host, port = self._place
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            raise ServerError(
                f"OpenAI's API cannot listen on {host}:{port}: {error.strerror or error}",
                next_step="choose another port",
            ) from error
        bound_host, bound_port = self._runner.addresses[0][:2]
        shown = f"[{bound_host}]" if ":" in bound_host else bound_host
        self.address = f"{shown}:{bound_port}"

    async def _close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._client is not None:
            await self._client.close()
