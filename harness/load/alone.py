"""One request after another, from the calling thread: no Locust, no other user.

What a cold start is measured with: there the first requests are the point, not the rate.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from harness.load.answers import AnswerCheck
from harness.load.payloads import EncodedRequest
from harness.load.transports.contract import Transport
from harness.types import RequestRecord


def drive_alone(
    transport: Transport,
    requests: Sequence[EncodedRequest],
    check: AnswerCheck,
    *,
    most: int,
    longest_s: float,
) -> list[RequestRecord]:
    """Send requests in turn, the next when one is answered; connects with the first.

    Args:
        transport: not connected yet.
        requests: walked through from the first, again and again.
        check: what an answer must be.
        most: requests to send.
        longest_s: after which no further one is sent.

    Raises:
        RequestFailure: a request failed.
    """
    records: list[RequestRecord] = []
    until_ns = time.monotonic_ns() + int(longest_s * 1e9)
    while len(records) < most and (sent_ns := time.monotonic_ns()) < until_ns:
        request = requests[len(records) % len(requests)]
        answer = transport.send(request.body)
        completed_ns = time.monotonic_ns()
        check.check(answer, request)
        records.append(RequestRecord(sent_ns, sent_ns, completed_ns, "ok"))
    return records
