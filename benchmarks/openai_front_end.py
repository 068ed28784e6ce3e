"""What OpenAI's front end adds to a stream: to its first token, to every token, and in CPU time.

A server of tokens (`tests/token_server`) notes when it received each request and when it sent each
token. Whatever lies beyond that between a client's sending and its reading was added on the way:
by the front end and by this client. The same client asks the server's own OpenAI endpoint, in
alternation, so that its share is known. The front end is a process of its own.

    python benchmarks/openai_front_end.py --json rows.json
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rows import Row, run_as_command, show

from harness.serving.openai.app import GeneratingModel
from harness.serving.openai.server import OpenAIServer

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path.insert(0, str(TESTS))
from token_server import FakeTokenServer, Played, StreamScript, evenly  # noqa: E402  (lies in the tests)

TOKENS, GAP_S = 32, 0.02
PROMPT = "the quick brown fox jumps over the lazy dog"
TEMPLATE = "{% for message in messages %}{{ message.content }} {% endfor %}"
_EVENT, _END = b"data: {", b"\r\n0\r\n\r\n"
_PATHS: dict[str, dict[str, object]] = {
    "/v1/completions": {"prompt": PROMPT},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": PROMPT}]},
}


@dataclass(frozen=True)
class Answered:
    """One stream as the client saw it, in nanoseconds of CLOCK_MONOTONIC."""

    seed: int
    """That the request bore: what tells streams in flight together apart."""
    sent_ns: int
    read_ns: Sequence[int]
    """When each token's event was read."""


def main() -> int:
    """Measure, and show the rows."""
    options = _parse(sys.argv[1:])
    if options.serve:
        _serve(options.serve)
        return 0
    script = StreamScript(evenly(TOKENS, first_s=GAP_S, gap_s=GAP_S))
    rows: list[Row] = []
    with FakeTokenServer(script) as tokens, _front_end(tokens.grpc) as (address, process):
        for in_flight in options.in_flight:
            for path in _PATHS:
                rows += _compare(tokens, address, process, path, in_flight, options)
    show("Added to each stream, beyond the model's own times", rows, options.json)
    return 0


def _compare(
    tokens: FakeTokenServer,
    front: str,
    process: psutil.Process,
    path: str,
    in_flight: int,
    options: argparse.Namespace,
) -> Iterator[Row]:
    """A row for the server's own endpoint, and one for the front end."""
    ttft: dict[str, list[float]] = {"none": [], "ours": []}
    token: dict[str, list[float]] = {"none": [], "ours": []}
    cpu_s = 0.0
    connections = {
        name: [Client(address, seed) for seed in range(in_flight)]
        for name, address in (("none", tokens.http), ("ours", front))
    }
    with ThreadPoolExecutor(in_flight) as pool:
        for turn in range(options.rounds + 1):
            for name, clients in connections.items():
                tokens.begin(StreamScript(evenly(TOKENS, first_s=GAP_S, gap_s=GAP_S)))
                before_s = sum(process.cpu_times()[:2])
                answers = list(pool.map(lambda one: one.ask(path), clients))
                if not turn:
                    continue  # connections are made, code is warm
                cpu_s += sum(process.cpu_times()[:2]) - before_s if name == "ours" else 0.0
                beyond_first, beyond_all = added(tokens, answers)
                ttft[name] += beyond_first
                token[name] += beyond_all
    count = options.rounds * in_flight * TOKENS
    for name, first in ttft.items():
        yield {
            "front_end": name,
            "path": path,
            "in_flight": in_flight,
            **_percentiles("ttft_added_ms", first),
            **_percentiles("token_added_ms", token[name]),
            "front_end_cpu_us_per_token": 1e6 * cpu_s / count if name == "ours" else float("nan"),
        }


def added(tokens: FakeTokenServer, answers: Sequence[Answered]) -> tuple[list[float], list[float]]:
    """Milliseconds: of first tokens beyond the server's own; of all from sending to reading."""
    first, every = [], []
    played = {seed_of(one): one for one in tokens.played}
    for answer in answers:
        truth = played[answer.seed]
        own_ns = truth.token_ns[0] - truth.received_ns
        first.append((answer.read_ns[0] - answer.sent_ns - own_ns) / 1e6)
        both = zip(answer.read_ns, truth.token_ns, strict=True)
        every += [(read_ns - sent_ns) / 1e6 for read_ns, sent_ns in both]
    return first, every


def seed_of(played: Played) -> int:
    """The seed that a request bore, over either protocol."""
    sampling = played.asked.get("sampling_parameters", played.asked)
    return int(sampling["seed"])


class Client:
    """One connection, which carries one stream after the other."""

    def __init__(self, address: str, seed: int) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._seed = seed

    def ask(self, path: str) -> Answered:
        """Stream one answer."""
        asked = {"model": "m", "stream": True, "max_tokens": TOKENS, "seed": self._seed}
        body = json.dumps({**_PATHS[path], **asked})
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        sent_ns = time.monotonic_ns()
        self._socket.sendall((head + body).encode())
        data, read_ns = b"", list[int]()
        while not data.endswith(_END):
            data += self._socket.recv(65536)
            now_ns = time.monotonic_ns()
            seen = min(data.count(_EVENT), TOKENS)
            read_ns += [now_ns] * (seen - len(read_ns))
        return Answered(self._seed, sent_ns, read_ns)


@contextmanager
def _front_end(grpc: str) -> Iterator[tuple[str, psutil.Process]]:
    command = [sys.executable, __file__, "--serve", grpc]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None  # noqa: S101  (it is a pipe)
        yield process.stdout.readline().strip(), psutil.Process(process.pid)
        assert process.stdin is not None  # noqa: S101  (it is a pipe)
        process.stdin.close()


def _serve(grpc: str) -> None:
    """Be the front end until the standard input ends."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(["?", *PROMPT.split()])}
    backend = Tokenizer(models.WordLevel(words, unk_token="?"))  # noqa: S106  (a word)
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    fast: Any = PreTrainedTokenizerFast
    made = fast(tokenizer_object=backend, unk_token="?")  # noqa: S106
    made.chat_template = TEMPLATE
    with tempfile.TemporaryDirectory() as folder:
        made.save_pretrained(folder)
        model = GeneratingModel("m", Path(folder), 1024)
        with OpenAIServer([model], grpc) as server:
            print(server.address, flush=True)
            sys.stdin.read()


def _percentiles(name: str, values: Sequence[float]) -> dict[str, float]:
    return {f"{name}_p{p}": float(np.percentile(values, p)) for p in (50, 95, 99)}


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 8], metavar="N")
    parser.add_argument("--rounds", type=int, default=30, help="streams in turn, for each number")
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--serve", metavar="HOST:PORT", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_as_command(main)
