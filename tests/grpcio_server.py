"""A gRPC server by grpcio that answers `ModelInfer` as a test says, in bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from http2_server import infer_response

Handler = Callable[[bytes, Any], bytes]
"""Request and grpcio's context to answer; both messages serialised."""


def plain_answer(request: bytes, context: Any) -> bytes:
    """Eight zero bytes of logits."""
    return infer_response()


@contextmanager
def grpcio_server(
    handler: Handler = plain_answer,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    credentials: Any = None,
    compression: Any = None,
) -> Iterator[int]:
    """Run it for the length of a `with`; yields its port."""
    server = grpc.server(
        ThreadPoolExecutor(4),
        compression=compression,
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    )
    methods = {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(handler),
        "ServerLive": grpc.unary_unary_rpc_method_handler(lambda request, context: b"\x08\x01"),
    }
    service = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods)
    server.add_generic_rpc_handlers((service,))
    address = f"{host}:{port}"
    port = (
        server.add_insecure_port(address)
        if credentials is None
        else server.add_secure_port(address, credentials)
    )
    server.start()
    try:
        yield port
    finally:
        server.stop(grace=None).wait()
