"""Header blocks of HTTP/2 (RFC 7541): constant ones out, remembered ones in."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hpack import Decoder, Encoder, HPACKError, NeverIndexedHeaderTuple

from harness.load.transports.grpc.frames import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    HAS_PRIORITY,
    PADDED,
    ErrorCode,
    Http2Violation,
    without_padding,
)

Headers = dict[str, str]
"""By lower-case name; of equal blocks the same object, so that it need be judged only once."""

MAX_BLOCK_BYTES = 2**18

_REMEMBERED_BLOCKS = 64
_DECORATED = PADDED | HAS_PRIORITY


def encode_headers(fields: Iterable[tuple[str, str]]) -> bytes:
    """A block that means the same on every connection at any time.

    It uses the static table and literals that are never indexed, so it neither reads nor changes
    the state that the two ends of a connection share. Strings are not Huffman-coded: the server
    under test shall not have to decode them.
    """
    tuples = [NeverIndexedHeaderTuple(name, value) for name, value in fields]
    return Encoder().encode(tuples, huffman=False)


class HeaderFrames:
    """Puts the header blocks of one connection together and decodes them, in order.

    Args:
        on_change: called when earlier blocks may mean something else from now on.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._memory = HeaderMemory(on_change)
        self.is_settled = self._memory.is_settled
        self._stream_id = 0
        self._last = 0
        """END_STREAM of the block that is to be continued."""
        self._block: bytes | None = None

    def take(
        self, kind: int, flags: int, stream_id: int, payload: bytes
    ) -> tuple[Headers, int] | None:
        """Take in a HEADERS or CONTINUATION frame.

        Returns:
            The fields and END_STREAM; None while the block is to be continued.

        Raises:
            Http2Violation: a continuation of nothing, a block that is too large or no block.
        """
        last = flags & END_STREAM
        if kind == CONTINUATION:
            if self._block is None or self._stream_id != stream_id:
                raise Http2Violation("a header block is continued that was not begun")
            payload, last, self._block = self._block + payload, self._last, None
        elif flags & _DECORATED:
            payload = without_padding(flags, payload)
        if len(payload) > MAX_BLOCK_BYTES:
            raise Http2Violation(
                f"header fields of more than {MAX_BLOCK_BYTES} bytes", ErrorCode.ENHANCE_YOUR_CALM
            )
        if not flags & END_HEADERS:
            self._stream_id, self._last, self._block = stream_id, last, payload
            return None
        return self._memory.decode(payload), last


class HeaderMemory:
    """Decodes the header blocks of one connection, each different one once where that is sound.

    What a block means, and what it does to the decoder's table, depends on the table alone. So a
    block that leaves the table as it was means the same again for as long as the table stays so,
    and skipping its decoding changes nothing. Any change of the table forgets all blocks.

    Args:
        on_change: called with every change of the table.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._decoder = Decoder()
        self._on_change = on_change
        self._known: dict[bytes, Headers] = {}

    def decode(self, block: bytes) -> Headers:
        """The fields of a block; every block of the connection must come here, in order.

        Raises:
            Http2Violation: it is not a header block.
        """
        known = self._known.get(block)
        return self._decode(block) if known is None else known

    def is_settled(self, block: bytes) -> bool:
        """Whether a block is remembered."""
        return block in self._known

    def _decode(self, block: bytes) -> Headers:
        before = self._table()
        try:
            fields = self._decoder.decode(block, raw=True)
        except HPACKError as error:
            raise Http2Violation(
                f"a header block that cannot be decoded: {error}", ErrorCode.COMPRESSION_ERROR
            ) from error
        headers: Headers = {}
        for raw_name, raw_value in fields:
            name, value = _text(raw_name).lower(), _text(raw_value)
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if self._table() != before:
            self._known.clear()
            self._on_change()
        else:
            self._remember(block, headers)
        return headers

    def _remember(self, block: bytes, headers: Headers) -> None:
        if len(self._known) >= _REMEMBERED_BLOCKS:
            self._known.clear()
        self._known[block] = headers

    def _table(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        table = self._decoder.header_table
        return table.maxsize, list(table.dynamic_entries)


def _text(raw: str | bytes) -> str:
    return raw if isinstance(raw, str) else raw.decode(errors="replace")
