"""A worker and its master prove to each other that they know one secret; nobody else gets in."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.load.generators.handshake import (
    KNOCKING_AT_ONCE,
    MAX_GREETING_BYTES,
    MAX_MESSAGE_BYTES,
    BadFrameError,
    Doorkeeper,
    Frame,
    RefusedError,
    Visitor,
)

TOKEN, RELEASE, NAME = b"a secret of enough length", "1.2.3", "host-a_0123"


def introduced(
    keeper: Doorkeeper, visitor: Visitor, name: str = NAME
) -> tuple[list[bytes], list[bytes]]:
    """All frames of a greeting that goes well: to the master, and to the worker."""
    to_master, to_worker = [visitor.hello()], []
    while True:
        reply = keeper.take(name, to_master[-1]).reply
        assert reply is not None
        to_worker.append(reply)
        answer = visitor.take(reply)
        if answer.joined:
            return to_master, to_worker
        assert answer.reply is not None
        to_master.append(answer.reply)


def met(token: bytes = TOKEN) -> tuple[Doorkeeper, Visitor]:
    keeper, visitor = Doorkeeper(token, RELEASE), Visitor(token, RELEASE, NAME)
    introduced(keeper, visitor)
    return keeper, visitor


def sent(side: bytes | None) -> bytes:
    assert side is not None
    return side


@pytest.mark.parametrize("token", [TOKEN, b""], ids=["secret", "none"])
def test_who_knows_the_token_joins_and_both_speak(token: bytes) -> None:
    keeper, visitor = met(token)
    assert keeper.knows(NAME)
    assert visitor.joined
    for text in (b"", b"one", b"two" * 1000):
        assert keeper.take(NAME, sent(visitor.wrap(text))).payload == text
        assert visitor.take(sent(keeper.wrap(NAME, text))).payload == text


def test_the_token_is_in_no_frame() -> None:
    keeper, visitor = Doorkeeper(TOKEN, RELEASE), Visitor(TOKEN, RELEASE, NAME)
    for frames in introduced(keeper, visitor):
        assert all(TOKEN not in one and TOKEN.hex().encode() not in one for one in frames)


def test_a_worker_with_another_token_is_refused_and_told_so() -> None:
    keeper, visitor = Doorkeeper(TOKEN, RELEASE), Visitor(b"another", RELEASE, NAME)
    challenge = sent(keeper.take(NAME, visitor.hello()).reply)
    refused = keeper.take(NAME, sent(visitor.take(challenge).reply))
    assert refused.refused == "wrong token"
    assert not keeper.knows(NAME)
    with pytest.raises(RefusedError, match="wrong token"):
        visitor.take(sent(refused.reply))


def test_a_master_that_does_not_know_the_token_is_not_joined() -> None:
    """It may let in whom it likes: the worker does not come."""
    keeper, visitor = Doorkeeper(b"another", RELEASE), Visitor(TOKEN, RELEASE, NAME)
    visitor.take(sent(keeper.take(NAME, visitor.hello()).reply))
    forged = Frame.WELCOME.value + json.dumps({"mac": "0" * 64}).encode()
    with pytest.raises(RefusedError, match="does not know the token"):
        visitor.take(forged)
    assert visitor.wrap(b"anything") is None


def test_another_release_is_refused_by_name_on_both_sides() -> None:
    keeper, visitor = Doorkeeper(TOKEN, "2.0"), Visitor(TOKEN, "1.0", NAME)
    refused = keeper.take(NAME, visitor.hello())
    assert "release 1.0" in refused.refused
    assert "release 2.0" in refused.refused
    with pytest.raises(RefusedError, match=r"release 1\.0 .* release 2\.0"):
        visitor.take(sent(refused.reply))
    # A master that lets everybody in is not joined by the worker.
    challenge = {"nonce": "0" * 64, "release": "3.0"}
    visitor = Visitor(TOKEN, "1.0", NAME)
    visitor.hello()
    with pytest.raises(RefusedError, match=r"release 3\.0 .* release 1\.0"):
        visitor.take(Frame.CHALLENGE.value + json.dumps(challenge).encode())


def test_a_message_is_taken_once_and_only_as_it_was_sent() -> None:
    keeper, visitor = met()
    first, second = sent(visitor.wrap(b"one")), sent(visitor.wrap(b"two"))
    assert keeper.take(NAME, second).payload == b"two"
    for frame in (second, first):
        with pytest.raises(BadFrameError, match="sent before"):
            keeper.take(NAME, frame)
    third = sent(visitor.wrap(b"three"))
    for place in range(1, len(third)):
        changed = bytearray(third)
        changed[place] ^= 1
        with pytest.raises(BadFrameError):
            keeper.take(NAME, bytes(changed))
    assert keeper.take(NAME, third).payload == b"three"


def test_a_message_cannot_be_sent_back_nor_to_another_nor_in_another_session() -> None:
    keeper, visitor = met()
    other = Visitor(TOKEN, RELEASE, "host-b_1")
    introduced(keeper, other, "host-b_1")
    ours = sent(visitor.wrap(b"one"))
    for take in (visitor.take, lambda frame: keeper.take("host-b_1", frame)):
        with pytest.raises(BadFrameError, match="MAC"):
            take(ours)
    introduced(keeper, visitor)
    with pytest.raises(BadFrameError, match="MAC"):
        keeper.take(NAME, ours)


def test_a_greeting_that_was_overheard_opens_no_door() -> None:
    keeper, visitor = Doorkeeper(TOKEN, RELEASE), Visitor(TOKEN, RELEASE, NAME)
    (hello, proof), _ = introduced(keeper, visitor)
    keeper.forget(NAME)
    keeper.take(NAME, hello)
    assert keeper.take(NAME, proof).refused == "wrong token"
    with pytest.raises(BadFrameError, match="nobody asked for"):
        keeper.take(NAME, proof)


def test_who_is_not_known_may_only_greet() -> None:
    keeper, visitor = met()
    frame = sent(visitor.wrap(b"one"))
    keeper.forget(NAME)
    unknown = keeper.take(NAME, frame)
    assert unknown.payload is None
    # The worker greets again, and goes on.
    again = visitor.take(sent(unknown.reply))
    assert sent(again.reply)[:1] == Frame.HELLO.value
    assert not visitor.joined
    stranger = Visitor(TOKEN, RELEASE, NAME)
    stranger.hello()
    with pytest.raises(BadFrameError, match="before the master has proven itself"):
        stranger.take(sent(met()[0].wrap(NAME, b"stop")))


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"?",
        b"GET / HTTP/1.1\r\n\r\n",
        b"H",
        b"H[]",
        b"H{}",
        b'H{"nonce": 1, "release": "1.2.3"}',
        b'H{"nonce": "a", "release": "1.2.3", "more": "b"}',
        b'H{"nonce": "\\ud800", "release": "1.2.3"}',
        b"H" + b"[" * 1000,
        b"H" + b"x" * MAX_GREETING_BYTES,
        b'P{"mac": "00"}',
        b'C{"nonce": "a", "release": "1.2.3"}',
        b'W{"mac": "00"}',
        b'R{"why": "me"}',
        b"U",
    ],
)
def test_what_no_worker_sends_ends_its_connection(frame: bytes) -> None:
    with pytest.raises(BadFrameError):
        Doorkeeper(TOKEN, RELEASE).take(NAME, frame)


def test_messages_that_are_cut_short_or_too_large_are_refused() -> None:
    keeper, visitor = met()
    frame = sent(visitor.wrap(b""))
    for length in range(1, len(frame)):
        with pytest.raises(BadFrameError, match="cut short"):
            keeper.take(NAME, frame[:length])
    with pytest.raises(BadFrameError, match="bytes"):
        keeper.take(NAME, frame + b"x" * MAX_MESSAGE_BYTES)


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_frame_or_a_bad_frame(frame: bytes) -> None:
    keeper, visitor = Doorkeeper(TOKEN, RELEASE), Visitor(TOKEN, RELEASE, NAME)
    visitor.hello()
    for take in (visitor.take, lambda one: keeper.take(NAME, one)):
        try:
            received = take(frame)
        except (BadFrameError, RefusedError):
            continue
        assert received.payload is None
        assert not received.joined


def test_those_who_knock_and_say_no_more_take_no_room() -> None:
    keeper, visitor = Doorkeeper(TOKEN, RELEASE), Visitor(TOKEN, RELEASE, NAME)
    challenge = sent(keeper.take(NAME, visitor.hello()).reply)
    other = Visitor(TOKEN, RELEASE, "x").hello()
    for number in range(KNOCKING_AT_ONCE):
        keeper.take(f"crowd-{number}", other)
    with pytest.raises(BadFrameError, match="nobody asked for"):
        keeper.take(NAME, sent(visitor.take(challenge).reply))


def test_all_that_a_new_master_does_not_know_is_answered_by_one_greeting() -> None:
    """What was on its way to the last master comes to the next, piece by piece."""
    _, visitor = met()
    other = Doorkeeper(TOKEN, RELEASE)
    under_way = [sent(visitor.wrap(text)) for text in (b"one", b"two", b"three")]
    unknown = [sent(other.take(NAME, frame).reply) for frame in under_way]
    hellos = [visitor.take(frame).reply for frame in unknown]
    assert hellos[1:] == [None, None]
    proof = sent(visitor.take(sent(other.take(NAME, sent(hellos[0])).reply)).reply)
    welcome = sent(other.take(NAME, proof).reply)
    assert visitor.take(unknown[0]).reply is None
    assert visitor.take(welcome).joined
    assert other.take(NAME, sent(visitor.wrap(b"four"))).payload == b"four"
