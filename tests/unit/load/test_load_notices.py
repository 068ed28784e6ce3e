"""The lines between the harness and its switchboard, and what a worker says of itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.load.generators.messages import ANSWERS, LoadEnded, Prepare, StopLoad
from harness.load.generators.notices import (
    COMMANDS,
    GREETINGS,
    Answered,
    Back,
    ClockKnown,
    Dismiss,
    Give,
    Gone,
    Greeting,
    Joined,
    RecordsKept,
    SentFile,
    Told,
    UnreadableAnswerError,
    decode_notice,
    encode_notice,
    paths_of,
    relay_answer,
    sent_file,
    with_paths,
)
from harness.load.generators.pool import with_tokenizer_file
from harness.load.transports.address import Target
from harness.types import (
    ArrivalProcess,
    Generation,
    GrpcImplementation,
    StreamApi,
    WireProtocol,
    Workload,
)

GREETING = Greeting("host-a", 7, 2, "0.1.0", "boot-id", "0-1")


@pytest.mark.parametrize(
    "notice",
    [
        Joined("w", GREETING),
        Gone("w", "it left"),
        Back("w"),
        ClockKnown("w", -5, 6, 7),
        RecordsKept("w", "load", ""),
        Told("a line\nand another"),
    ],
)
def test_notices_are_lines_that_can_be_read(notice) -> None:
    line = encode_notice(notice)
    assert line.count(b"\n") == 1
    assert decode_notice(line.strip()) == notice


@pytest.mark.parametrize(
    "command",
    [
        Give("w", "load", StopLoad(1), (SentFile(Path("/a"), "ab", 3),)),
        Dismiss("w", "load"),
    ],
)
def test_commands_are_lines_that_can_be_read(command) -> None:
    line = COMMANDS.dump_json(command)
    assert b"\n" not in line
    assert COMMANDS.validate_json(line) == command


def test_an_answer_is_passed_on_as_it_came() -> None:
    ended = LoadEnded("load", "")
    line = relay_answer("host-a_1", "load", ANSWERS.dump_json(ended))
    assert decode_notice(line.rstrip(b"\n")) == Answered("host-a_1", "load", ended)
    for answer in (b"{", b'{"answer": "other"}', b"\xff"):
        with pytest.raises(UnreadableAnswerError, match="host-a_1"):
            decode_notice(relay_answer("host-a_1", "load", answer).rstrip(b"\n"))
    with pytest.raises(ValueError, match="several lines"):
        relay_answer("host-a_1", "load", b'{"a"\n:1}')


def test_greetings() -> None:
    assert GREETINGS.validate_json(GREETINGS.dump_json(GREETING)) == GREETING
    with pytest.raises(ValueError, match="host"):
        GREETINGS.validate_json(b"{}")


def test_every_file_of_an_order_is_named_and_replaced(tmp_path: Path) -> None:
    workload = Workload(
        WireProtocol.HTTP,
        1,
        1,
        seed=0,
        duration_s=1.0,
        warmup_s=1.0,
        arrivals=ArrivalProcess(trace=Path("/t")),
        generation=Generation(StreamApi.CHAT, tokenizer=Path("/tokenizer.json")),
    )
    order = Prepare(
        target=Target("h", 1, ca_file=Path("/ca")),
        grpc=GrpcImplementation.NATIVE,
        model="m",
        payloads=Path("/p"),
        known_answers=Path("/k"),
        outputs=(),
        workload=workload,
        share=1,
        first_user=0,
        worker=0,
        workers=1,
        request_timeout_s=1.0,
    )
    names = ("p", "k", "t", "tokenizer.json", "ca")
    assert set(paths_of(order)) == {Path("/") / name for name in names}
    moved = with_paths(order, lambda path: tmp_path / path.name)
    assert set(paths_of(moved)) == {tmp_path / name for name in names}
    plain = replace(workload, generation=None)
    bare = replace(order, known_answers=None, target=Target("h", 1), workload=plain)
    assert len(paths_of(with_paths(bare, lambda path: path))) == 2


def test_a_file_is_named_by_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert sent_file(path) == SentFile(
        path, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 3
    )


def test_a_tokenizer_s_folder_is_named_by_the_one_file_that_is_read_of_it(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").touch()
    asked = Generation(StreamApi.CHAT, tokenizer=tmp_path)
    workload = Workload(WireProtocol.HTTP, 1, 1, 1.0, 0.0, seed=0, generation=asked)
    for told in (tmp_path, tmp_path / "tokenizer.json"):
        named = replace(workload, generation=replace(asked, tokenizer=told))
        found = with_tokenizer_file(named).generation
        assert found is not None
        assert found.tokenizer == (tmp_path / "tokenizer.json").resolve()
    plain = replace(workload, generation=None)
    assert with_tokenizer_file(plain) is plain
