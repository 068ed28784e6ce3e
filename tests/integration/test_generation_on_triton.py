"""A generating model on the embedded Triton: streams over gRPC and HTTP, refusals, cancellation."""

import copy
import dataclasses
import itertools
import json
import queue
import shutil
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as triton
from generating_models import POSITIONS
from prometheus_client.parser import text_string_to_metric_families

from harness.flow.external.texts import EndpointTexts, TextEndpoint
from harness.load.requests.generation import GenerationRequest
from harness.load.transports.address import parse_target
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from harness.serving.generation.repository import (
    GenerationServing,
    generation_override,
    write_generator,
)
from harness.types import Generation, StreamApi, WireProtocol
from harness.types.generation import SamplingParameters

pytestmark = pytest.mark.triton
SLOTS, QUEUE = 2, 3
TIMEOUT_S = 60


@pytest.fixture(scope="module")
def served(generator, server_environment, tmp_path_factory):
    """The server's endpoint; two slots, and three requests may wait."""
    checkpoint, variant = generator
    serving = GenerationServing(slots=SLOTS, queue_size=QUEUE, read_tokens=16)
    write_generator(variant, serving)
    log = tmp_path_factory.mktemp("log") / "triton.log"
    with (
        EmbeddedTriton(server_environment, variant.path.parent, log_file=log) as server,
        TritonClient(server.endpoint) as client,
    ):
        client.load(variant.name, generation_override(variant, serving))
        yield Served(checkpoint, variant, server.endpoint)


class Served:
    def __init__(self, checkpoint, variant, endpoint):
        import transformers

        self.variant, self.name, self.endpoint = variant, variant.name, endpoint
        self.model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)

    def generated(self, prompt, count):
        """transformers' own answer: tokens without the prompt's."""
        import torch

        ids = self.tokenizer(prompt)["input_ids"]
        with torch.inference_mode():
            answer = self.model.generate(
                torch.tensor([ids]), max_new_tokens=count, do_sample=False, eos_token_id=None
            )
        return answer[0, len(ids) :].tolist()

    def post(self, path, body):
        """Status and text of the HTTP answer."""
        url = f"http://{self.endpoint.http}/v2/models/{self.name}/{path}"
        request = urllib.request.Request(
            url, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name):
        with urllib.request.urlopen(self.endpoint.metrics, timeout=TIMEOUT_S) as page:
            families = text_string_to_metric_families(page.read().decode())
        samples = [one for family in families for one in family.samples if one.name == name]
        (sample,) = [one for one in samples if one.labels == {"model": self.name}]
        return sample.value

    def settled(self, name, value):
        """Wait until a metric has a value: it is reported five times a second."""
        self.until(name, lambda now: now == value)

    def until(self, name, is_so):
        deadline = time.monotonic() + TIMEOUT_S
        while not is_so(self.metric(name)):
            assert time.monotonic() < deadline, (name, self.metric(name))
            time.sleep(0.05)


ALL = (
    *("return_finish_reason", "return_num_input_tokens", "return_num_output_tokens"),
    "return_queue_time_us",
)


def tensor(name, values, kind):
    array = np.array(values)
    made = triton.InferInput(name, array.shape, kind)
    made.set_data_from_numpy(array)
    return made


def inputs(text=None, ids=None, **parameters):
    made = [tensor("sampling_parameters", [json.dumps(parameters).encode()], "BYTES")]
    made += [tensor(name, [True], "BOOL") for name in ALL]
    if text is not None:
        made.append(tensor("text_input", [text.encode()], "BYTES"))
    if ids is not None:
        made.append(tensor("input_ids", np.array(ids, np.int32), "INT32"))
    return made


class Streams:
    """A bidirectional gRPC stream, and what came of each request on it."""

    def __init__(self, served):
        self.client = triton.InferenceServerClient(served.endpoint.grpc)
        self.name, self.answers = served.name, queue.Queue()
        self.events, self.errors, self.ended = {}, {}, set()
        self.client.start_stream(lambda result, error: self.answers.put((result, error)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.stop_stream(cancel_requests=True)
        self.client.close()

    def ask(self, key, text=None, ids=None, **parameters):
        made = inputs(text, ids, **parameters)
        self.client.async_stream_infer(
            self.name, made, request_id=key, enable_empty_final_response=True
        )

    def take(self):
        result, error = self.answers.get(timeout=TIMEOUT_S)
        if error is not None:
            raise error
        response = result.get_response()
        if response.parameters["triton_final_response"].bool_param:
            self.ended.add(response.id)
        if response.outputs:
            event = {one.name: result.as_numpy(one.name) for one in response.outputs}
            self.events.setdefault(response.id, []).append(event)
        return response.id

    def take_all(self, keys):
        keys = set(keys)
        while not keys <= self.ended:
            self.take()

    def tokens(self, key):
        return [int(one) for event in self.events[key] for one in event["token_ids"]]

    def text(self, key):
        return "".join(event["text_output"][0].decode() for event in self.events[key])

    def reasons(self, key):
        return [event["finish_reason"][0].decode() for event in self.events[key]]


def test_streams_that_come_together_are_each_what_generate_writes(served):
    prompts = ["the quick brown", "a", "teachers are large, students are small, and", "東京"]
    with Streams(served) as streams:
        for key, prompt in enumerate(prompts):
            streams.ask(str(key), prompt, max_tokens=12, ignore_eos=True)
        streams.take_all(map(str, range(4)))
        for key, prompt in enumerate(prompts):
            wanted = served.generated(prompt, 12)
            assert streams.tokens(str(key)) == wanted
            assert streams.text(str(key)) == served.tokenizer.decode(
                wanted, skip_special_tokens=True
            )
            assert streams.reasons(str(key)) == [""] * 11 + ["length"]
            events = streams.events[str(key)]
            assert [int(event["num_output_tokens"][0]) for event in events] == [1] * 12
            counted = len(served.tokenizer(prompt)["input_ids"])
            assert {int(event["num_input_tokens"][0]) for event in events} == {counted}
            assert ["queue_time_us" in event for event in events] == [False] * 11 + [True]


def test_tokens_in_place_of_text_give_the_same(served):
    prompt = "the quick brown"
    ids = served.tokenizer(prompt)["input_ids"]
    with Streams(served) as streams:
        streams.ask("ids", ids=ids, max_tokens=5, ignore_eos=True)
        streams.take_all(["ids"])
    assert streams.tokens("ids") == served.generated(prompt, 5)


@pytest.mark.parametrize("protocol", list(WireProtocol))
def test_a_load_may_send_tokens_too(served, protocol):
    """A chat in its template, as the load generator sends it."""
    ids = tuple(served.tokenizer("the quick brown")["input_ids"])
    known = ("text_input", "input_ids", *ALL, "stream", "sampling_parameters")
    generation = Generation(StreamApi.TRITON, inputs=known, sampling='{"ignore_eos": true}')
    chat = ({"role": "user", "content": "another text"},)
    asked = GenerationRequest("", 5, chat, input_ids=ids)
    where = served.endpoint.grpc if protocol is WireProtocol.GRPC else served.endpoint.http
    endpoint = TextEndpoint(parse_target(where), protocol, {served.name: generation}, TIMEOUT_S)
    client = EndpointTexts(endpoint, {served.name: {ids: asked}})
    try:
        told = client.write(served.name, ids, SamplingParameters(max_tokens=5, ignore_eos=True))
    finally:
        client.close()
    wanted = served.tokenizer.decode(served.generated("the quick brown", 5))
    assert told.text == wanted


def test_an_answer_over_http_in_events_and_in_one(served):
    wanted = served.tokenizer.decode(served.generated("the quick", 6), skip_special_tokens=True)
    body = {
        "text_input": "the quick",
        "sampling_parameters": json.dumps({"max_tokens": 6, "ignore_eos": True}),
        "return_finish_reason": True,
        "return_num_output_tokens": True,
    }
    status, text = served.post("generate_stream", body)
    events = [json.loads(line.removeprefix("data: ")) for line in text.split("\n\n") if line]
    assert status == 200
    assert "".join(event["text_output"] for event in events) == wanted
    assert [event["finish_reason"] for event in events] == [""] * 5 + ["length"]
    assert not any("num_input_tokens" in event for event in events)  # not asked for
    status, text = served.post("generate", body | {"stream": False})
    whole = json.loads(text)
    assert (status, whole["text_output"], whole["num_output_tokens"]) == (200, wanted, 6)
    status, text = served.post(
        "generate", body | {"stream": False, "exclude_input_in_output": False}
    )
    assert json.loads(text)["text_output"] == "the quick" + wanted


def test_without_sampling_parameters_the_request_s_own_count(served):
    body = {"text_input": "the quick", "stream": False}
    for own in ({"parameters": {"max_tokens": 2}}, {"max_tokens": 2}):
        status, text = served.post("generate", body | own)
        assert (status, len(json.loads(text)["token_ids"])) == (200, 2)
    status, text = served.post("generate", body | {"parameters": {"max_tokns": 2}})
    assert (status, "has no 'max_tokns'" in text) == (400, True)


def test_how_probable_a_prompt_is(served):
    import torch

    prompt = "teachers are large, students"
    with Streams(served) as streams:
        streams.ask("read", prompt, max_tokens=0, prompt_logprobs=True)
        streams.take_all(["read"])
    (event,) = streams.events["read"]
    ids = torch.tensor([served.tokenizer(prompt)["input_ids"]])
    with torch.inference_mode():
        expected = torch.log_softmax(served.model(ids).logits[0], -1)
    chosen = expected[:-1].gather(-1, ids[0, 1:, None])
    np.testing.assert_allclose(event["prompt_logprobs"][1:], chosen[:, 0].numpy(), atol=1e-3)
    ranks = (expected[:-1] > chosen).sum(-1) + 1
    assert event["prompt_ranks"].tolist() == [0, *ranks.tolist()]
    assert event["finish_reason"][0] == b"length"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"text_input": ""}, "the prompt is empty"),
        ({"text_input": "x " * POSITIONS}, f"prompt and answer have room for {POSITIONS}"),
        ({"text_input": "x", "sampling_parameters": "{"}, "sampling_parameters is not JSON"),
        ({"text_input": "x", "sampling_parameters": '{"top_p": 2}'}, "top_p is 2"),
        ({"text_input": "x", "input_ids": [1]}, "give either text_input or input_ids"),
        ({"input_ids": [-5]}, "the prompt has a token -5"),
    ],
)
def test_what_cannot_be_answered_is_refused_as_the_client_s_fault(served, body, said):
    status, text = served.post("generate", body | {"stream": False})
    assert status == 400
    assert said in json.loads(text)["error"]


def test_zero_tokens_and_a_prompt_that_fills_the_context(served):
    status, text = served.post(
        "generate",
        {
            "text_input": "the quick",
            "stream": False,
            "sampling_parameters": '{"max_tokens": 0}',
            "return_num_input_tokens": True,
            "return_finish_reason": True,
        },
    )
    answer = json.loads(text)
    counted = len(served.tokenizer("the quick")["input_ids"])
    assert (status, answer["text_output"], answer["finish_reason"]) == (200, "", "length")
    assert answer["num_input_tokens"] == counted
    with Streams(served) as streams:
        streams.ask("long", ids=[5] * (POSITIONS - 2), max_tokens=50, ignore_eos=True)
        streams.take_all(["long"])
    assert len(streams.tokens("long")) == 2
    assert streams.reasons("long")[-1] == "length"


def test_clients_that_leave_free_their_slots_and_a_full_queue_is_told(served):
    """Two streams hold both slots for as long as the context lasts, three wait; all leave."""
    served.settled("generation_running", 0)
    rejected = served.metric("generation_rejected_total")
    occupied = {"max_tokens": POSITIONS, "ignore_eos": True}
    with Streams(served) as streams:
        # Each answer takes as long as its events are read; more than can be held are sent.
        for key in range(40):
            streams.ask(str(key), "the", **occupied)
        refused = _until_refused(streams)
    assert "the queue is full" in refused
    served.until("generation_rejected_total", lambda now: now > rejected)
    # Whoever comes next is served, as soon as those are gone.
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        with Streams(served) as streams:
            streams.ask("next", "the quick", max_tokens=4, ignore_eos=True)
            try:
                streams.take_all(["next"])
            except triton.InferenceServerException as error:
                assert "the queue is full" in str(error)  # noqa: PT017  (it is tried again)
                time.sleep(0.05)
                continue
            assert streams.tokens("next") == served.generated("the quick", 4)
            break
    served.settled("generation_running", 0)
    served.settled("generation_queued", 0)
    assert time.monotonic() < deadline


def _until_refused(streams):
    while True:
        try:
            streams.take()
        except triton.InferenceServerException as error:
            return str(error)


def test_a_client_that_goes_away_is_cancelled(served):
    """A tiny model may have written all before Triton tells: then it is tried again."""
    served.settled("generation_running", 0)
    time.sleep(0.3)
    cancelled, finished = (
        served.metric(f"generation_{how}_total") for how in ("cancelled", "finished")
    )
    deadline = time.monotonic() + 2 * TIMEOUT_S
    for gone in itertools.count(1):
        with Streams(served) as streams:
            streams.ask("gone", "a", max_tokens=POSITIONS, ignore_eos=True)
            streams.take()
        while True:
            now = [served.metric(f"generation_{how}_total") for how in ("cancelled", "finished")]
            if sum(now) == cancelled + finished + gone:
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if now[0] > cancelled:
            return


def test_the_page_has_what_runs_on_both_instances_of_a_model(served):
    """Two processes with two slots each: four answers are written while more wait."""
    path = served.variant.path.with_name("writer-twice")
    shutil.copytree(served.variant.path, path, dirs_exist_ok=True)  # a repetition's
    variant = dataclasses.replace(served.variant, name=path.name, path=path)
    serving = GenerationServing(slots=SLOTS, queue_size=1000, instances=2)
    write_generator(variant, serving)
    with TritonClient(served.endpoint) as client:
        client.load(variant.name, generation_override(variant, serving))
        twice = copy.copy(served)
        twice.name = variant.name
        with Streams(twice) as streams:
            keys = itertools.count()

            def all_write(running):
                if twice.metric("generation_queued") < 200:
                    for key in itertools.islice(keys, 100):
                        streams.ask(str(key), "the", max_tokens=POSITIONS, ignore_eos=True)
                return running == 2 * SLOTS

            twice.until("generation_running", all_write)
        twice.settled("generation_running", 0)
        twice.settled("generation_queued", 0)
        client.unload(variant.name)


def test_the_metrics_page_counts_tokens(served):
    served.settled("generation_running", 0)
    time.sleep(0.3)
    read, wrote = (
        served.metric(f"generation_{side}_tokens_total") for side in ("prompt", "output")
    )
    with Streams(served) as streams:
        streams.ask("one", ids=[7] * 20, max_tokens=9, ignore_eos=True)
        streams.take_all(["one"])
    served.settled("generation_output_tokens_total", wrote + 9)
    assert served.metric("generation_prompt_tokens_total") == read + 20  # reported before it
    for side in ("decode", "prefill"):  # reported after it
        served.until(f"generation_{side}_seconds_total", lambda now: now > 0)
