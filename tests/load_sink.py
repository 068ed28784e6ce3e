"""A recorder that keeps every request as it is told, for tests of the loops."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.load.transports.contract import RequestFailure


@dataclass
class Seen:
    """Keeps what it is told, in its order."""

    ok: list[tuple[int, int, int, int]] = field(default_factory=list)
    failed: list[tuple[int, int, int, RequestFailure]] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    identities: list[bytes] = field(default_factory=list)

    def add(
        self, scheduled_ns: int, sent_ns: int, completed_ns: int, rows: int, identity: bytes
    ) -> None:
        self.identities.append(identity)
        self.ok.append((scheduled_ns, sent_ns, completed_ns, rows))

    def fail(
        self,
        scheduled_ns: int,
        sent_ns: int,
        completed_ns: int,
        failure: RequestFailure,
        identity: bytes,
    ) -> None:
        self.identities.append(identity)
        self.failed.append((scheduled_ns, sent_ns, completed_ns, failure))

    def drop(self, scheduled_ns: int) -> None:
        self.dropped.append(scheduled_ns)
