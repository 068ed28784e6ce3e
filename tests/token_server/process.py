"""The process of the server of tokens; what it is asked comes over its standard input."""

from __future__ import annotations

import asyncio
import pickle
import signal
import sys
from typing import Any

from token_server.grpc_side import GrpcConnection
from token_server.http_side import HttpSide
from token_server.play import Stage


async def main() -> None:
    """Serve until the standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the test
    stage, loop = Stage(), asyncio.get_running_loop()
    http, http_port = await HttpSide(stage).listen()
    grpc = await loop.create_server(lambda: GrpcConnection(stage), "127.0.0.1", 0)
    addresses = (
        f"127.0.0.1:{http_port}",
        f"127.0.0.1:{grpc.sockets[0].getsockname()[1]}",
    )
    while (question := await loop.run_in_executor(None, asked)) is not None:
        pickle.dump(answer(stage, addresses, *question), sys.stdout.buffer)
        sys.stdout.buffer.flush()
    http.close()
    grpc.close()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


def asked() -> Any:
    """The next question, or None at the end."""
    try:
        return pickle.load(sys.stdin.buffer)
    except EOFError:
        return None


def answer(stage: Stage, addresses: tuple[str, str], name: str, *arguments: Any) -> Any:
    """What a question is answered with."""
    if name == "begin":
        stage.restart(*arguments)
        return addresses
    return getattr(stage, name)


if __name__ == "__main__":
    asyncio.run(main())
