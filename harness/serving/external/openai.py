"""An endpoint that speaks OpenAI's API: which models it has, and whether it is still there."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPException
from typing import Any

from numpy.typing import NDArray

from harness.errors import ServerError
from harness.serving.endpoint import Endpoint
from harness.serving.external.server import CALL_TIMEOUT_S, Address, check_alive
from harness.system.connections import url_opener

_LASTING = ("id", "owned_by", "root", "parent", "max_model_len", "meta")
"""Of what a list of models says of each: what changes with the model alone."""
_UNKNOWN = {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}


class OpenAiServer:
    """A running server that is known by its HTTP side alone; it keeps no statistics.

    Args:
        address: the server.

    Raises:
        UsageError: the certificates to trust cannot be read.
    """

    pid: int | None = None
    """The process of an external server is not known here."""

    def __init__(self, address: Address) -> None:
        self._address = address
        scheme = "https" if address.encrypted else "http"
        self._base = f"{scheme}://{address.authority}{address.prefix}"
        self.endpoint = Endpoint(http=address.authority, grpc="", metrics="")
        self._opener = url_opener(address.tls_context("http/1.1") if address.encrypted else None)

    def check(self) -> None:
        """Make sure that the server still accepts connections.

        Raises:
            ServerError: it does not.
        """
        check_alive(self._address)

    def models(self) -> tuple[str, ...] | None:
        """The ids of `GET /v1/models`; None where the server has no such list.

        Raises:
            ServerError: it does not answer, or answers with what is no list of models.
        """
        listed = self._listed()
        return None if listed is None else tuple(str(one["id"]) for one in listed)

    def _listed(self) -> list[dict[str, Any]] | None:
        request = urllib.request.Request(  # noqa: S310  (the scheme is ours)
            f"{self._base}/v1/models", headers=dict(self._address.headers)
        )
        try:
            with self._opener.open(request, timeout=CALL_TIMEOUT_S) as answer:
                told = json.loads(answer.read())
            return [{"id": str(one["id"]), **one} for one in told["data"]]
        except urllib.error.HTTPError as error:
            if error.code in _UNKNOWN:
                return None
            raise ServerError(
                f"{self._base}/v1/models: HTTP {error.code}: {error.reason}",
                next_step="name what it asks for: --header 'Authorization: Bearer KEY'",
            ) from error
        except (OSError, HTTPException) as error:
            raise ServerError(f"{self._base} does not answer: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ServerError(f"{self._base}/v1/models gives no list of models: {error}") from error

    def told_of(self, model: str) -> str:
        """What the server says of a model that stays the same while it has it, in JSON.

        When it was `created` is left out: some servers say when they were asked.

        Raises:
            ServerError: it does not answer.
        """
        listed = self._listed() or ()
        kept = ({key: one[key] for key in _LASTING if key in one} for one in listed)
        return json.dumps([one for one in kept if one.get("id") == model], sort_keys=True)

    def statistics(self, model: str) -> dict[str, Any]:
        """There are none.

        Raises:
            ServerError: always.
        """
        raise ServerError(f"{model}: an endpoint of OpenAI's API keeps no statistics")

    def infer(self, model: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Refuse: OpenAI's API takes no tensors.

        Raises:
            ServerError: always.
        """
        raise ServerError(f"{model}: an endpoint of OpenAI's API takes no {', '.join(inputs)}")
