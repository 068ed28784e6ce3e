"""Models that write on an external server: whole texts over its interface, and who they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from token_server import (
    FakeTokenServer,
    Finish,
    Opening,
    Piece,
    Refusal,
    StreamScript,
    evenly,
)

from harness.errors import ExchangedError, ServerError
from harness.flow.external import texts
from harness.flow.external.texts import EndpointTexts, TextEndpoint
from harness.flow.external.written_identity import ATTEMPTS, WrittenIdentities
from harness.load.requests.generation import GenerationRequest
from harness.load.transports.address import parse_target
from harness.tasks.generation.streamed import StreamedAnswer
from harness.types import (
    Generation,
    ModelFormat,
    ModelVariant,
    Precision,
    Role,
    StreamApi,
    WireProtocol,
)
from harness.types.generation import FinishReason, SamplingParameters

PROMPT = (1, 2, 3)
SAMPLING = SamplingParameters(max_tokens=8, stop=("END",))
APIS = [("chat", "http"), ("completions", "http"), ("triton", "http"), ("triton", "grpc")]


@pytest.fixture(scope="module")
def server() -> Iterator[FakeTokenServer]:
    with FakeTokenServer() as server:
        yield server


Ask = Callable[[], StreamedAnswer]


def writer(server: FakeTokenServer, api: str = "chat", protocol: str = "http") -> EndpointTexts:
    inputs = ("text_input", "stream", "sampling_parameters", "return_finish_reason")
    generation = Generation(StreamApi(api), inputs=inputs if api == "triton" else ())
    target = parse_target(server.grpc if protocol == "grpc" else server.http)
    asked = GenerationRequest("two words", 64)
    endpoint = TextEndpoint(target, WireProtocol(protocol), {"m": generation}, timeout_s=60.0)
    return EndpointTexts(endpoint, {"m": {PROMPT: asked}})


@pytest.mark.parametrize(("api", "protocol"), APIS)
def test_a_text_is_whole_and_says_why_it_ended(
    server: FakeTokenServer, api: str, protocol: str
) -> None:
    server.begin(
        StreamScript(evenly(3, first_s=0, gap_s=0)), StreamScript(evenly(9, first_s=0, gap_s=0))
    )
    one = writer(server, api, protocol)
    try:
        assert one.write("m", PROMPT, SAMPLING) == StreamedAnswer(
            "w0 w1 w2 ", (), FinishReason.STOP
        )
        longer = one.write("m", PROMPT, SAMPLING)
    finally:
        one.close()
    assert longer.text == "".join(f"w{number} " for number in range(8))
    assert longer.finish_reason is FinishReason.LENGTH


def test_what_was_reasoned_before_an_answer_is_none_of_it(server: FakeTokenServer) -> None:
    pieces = [Piece(0, "let me see ", reasoning=True), Piece(0, "four"), Piece(0, " words")]
    server.begin(StreamScript(pieces, opening=Opening.ROLE))
    one = writer(server)
    assert one.write("m", PROMPT, SAMPLING).text == "four words"
    one.close()


@pytest.mark.parametrize(("told", "tokens", "reason"), [(8, 3, "length"), (3, 3, "stop")])
def test_without_a_reason_the_length_says_why(
    server: FakeTokenServer, told: int, tokens: int, reason: str
) -> None:
    script = StreamScript(evenly(tokens, first_s=0, gap_s=0), finish=Finish.NEVER, told_tokens=told)
    server.begin(script)
    one = writer(server)
    assert one.write("m", PROMPT, SAMPLING).finish_reason is FinishReason(reason)
    one.close()


def test_a_text_that_ends_at_once_is_one(server: FakeTokenServer) -> None:
    """A load counts an answer without a token as a failure; a model may have nothing to say."""
    server.begin(StreamScript(()))
    one = writer(server)
    assert one.write("m", PROMPT, SAMPLING) == StreamedAnswer("", (), FinishReason.STOP)
    one.close()


def test_a_text_that_was_filtered_is_no_text_of_the_model(server: FakeTokenServer) -> None:
    server.begin(StreamScript(evenly(2, first_s=0, gap_s=0), finish_reason="content_filter"))
    one = writer(server)
    with pytest.raises(ServerError, match="content_filter"):
        one.write("m", PROMPT, SAMPLING)
    one.close()


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(
    server: FakeTokenServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(texts, "RESTS_S", (0.0, 0.0))
    busy = StreamScript(refusal=Refusal(status))
    server.begin(busy, busy, StreamScript(evenly(1, first_s=0, gap_s=0)), busy, busy, busy)
    one = writer(server)
    assert one.write("m", PROMPT, SAMPLING).text == "w0 "
    with pytest.raises(ServerError, match=f"http_{status}"):
        one.write("m", PROMPT, SAMPLING)
    one.close()


class Model:
    """A `Writer` whose texts a test changes."""

    def __init__(self, *answers: str) -> None:
        self.answers: Sequence[str] = answers
        self.asked: list[tuple[int, ...]] = []

    def write(
        self, model: str, token_ids: Sequence[int], sampling: SamplingParameters
    ) -> StreamedAnswer:
        self.asked.append(tuple(token_ids))
        text = self.answers[len(self.asked) % len(self.answers)]
        return StreamedAnswer(text, (), FinishReason.STOP)


PROMPTS = [(1, 2, 3), (1,), (1, 2)]


def establish(
    model: Model, warned: list[str], *, told: str = "told"
) -> tuple[WrittenIdentities, str]:
    identities = WrittenIdentities(model, "http://h:1/", lambda _: told)
    return identities, identities.establish("m", PROMPTS, (), 64, warned.append)


def variant(identity: str) -> ModelVariant:
    return ModelVariant(
        "v", "f", Role.STUDENT, "generation", ModelFormat.ONNX, Precision.FP32, "", identity,
        Path(), (), (), 0, None, served_as="m",
    )  # fmt: skip


def test_a_model_is_known_by_what_it_writes_behind_the_shortest_prompts() -> None:
    model, warned = Model("as ever"), list[str]()
    identities, identity = establish(model, warned)
    assert identity.startswith("remote:")
    assert model.asked == [(1,), (1, 2)] * 2
    identities.check(variant(identity))
    assert not warned
    assert establish(Model("as ever"), warned)[1] == identity
    assert establish(Model("otherwise"), warned)[1] != identity
    assert establish(Model("as ever"), warned, told="other")[1] != identity


def test_a_model_that_writes_otherwise_was_replaced() -> None:
    model = Model("as ever")
    identities, identity = establish(model, [])
    model.answers, model.asked = ("otherwise",), []
    with pytest.raises(ExchangedError, match="writes other texts"):
        identities.check(variant(identity))
    assert len(model.asked) == 2 * ATTEMPTS


def test_a_model_that_does_not_repeat_itself_is_told_and_never_taken_for_an_earlier_one() -> None:
    warned: list[str] = []
    identities, identity = establish(Model("a", "b", "c"), warned)
    assert "writes other texts behind the same prompts at temperature 0" in warned[0]
    assert establish(Model("a", "b", "c"), warned)[1] != identity
    identities.check(variant(identity))


def test_a_model_of_which_another_thing_is_said_was_replaced() -> None:
    said = ["version 1"]
    identities = WrittenIdentities(Model("as ever"), "http://h:1", lambda _: said[-1])
    identity = identities.establish("m", PROMPTS, (), 64, lambda _: None)
    said.append("version 2")
    with pytest.raises(ExchangedError, match="another than at the start"):
        identities.check(variant(identity))
