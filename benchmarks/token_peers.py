"""Peers that drive streams of chats: how each is started, and what CPU time it takes.

They are installed apart, in environments of their own (`pip install guidellm==0.8.1`,
`pip install aiperf==0.13.0`), and named on the command line.
"""

from __future__ import annotations

import json
import resource
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from client_process import PeerError
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

PROMPT = "say " * 32
_PROMPTS = 4096
_TIMEOUT_S = 300.0
_WORDS = 400

Command = Callable[[str, int, int, float, Path], list[str]]
"""Arguments of a closed loop: program, port, streams, seconds, a folder for files."""


def guidellm(program: str, port: int, streams: int, seconds: float, folder: Path) -> list[str]:
    """As guidellm 0.8 takes them."""
    prompts = _write_prompts(folder, "prompt")
    backend = f"kind=openai_http,target=http://127.0.0.1:{port},model=m"
    return [
        *(program, "run", "--disable-console"),
        *("--backend", f"{backend},request_format=/v1/chat/completions"),
        *("--profile", f"kind=concurrent,streams={streams}"),
        *("--constraint", f"kind=max_duration,seconds={seconds:g}"),
        *("--data", f"kind=json_file,path={prompts}"),
        *("--output", f"kind=json,path={folder / 'out.json'}"),
    ]


def aiperf(program: str, port: int, streams: int, seconds: float, folder: Path) -> list[str]:
    """As AIPerf 0.13 takes them; it wants a tokenizer, and is asked to count by the usage."""
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    Tokenizer(WordLevel({"say": 0}, unk_token="say")).save(str(tokenizer / "tokenizer.json"))  # noqa: S106
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "say"}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(kind))
    return [
        *(program, "profile", "--ui", "none", "--model", "m", "--url", f"http://127.0.0.1:{port}"),
        *("--endpoint-type", "chat", "--streaming", "--concurrency", str(streams)),
        *("--benchmark-duration", f"{seconds:g}", "--use-server-token-count"),
        *("--tokenizer", str(tokenizer), "--artifact-dir", str(folder / "out")),
        *("--input-file", str(_write_prompts(folder, "text"))),
        *("--custom-dataset-type", "single_turn"),
    ]


PEERS: dict[str, Command] = {"guidellm": guidellm, "aiperf": aiperf}


def peer_cpu_s(client: str, program: str, port: int, streams: int, seconds: float) -> float:
    """CPU seconds of a peer's run and of all its processes, their start included.

    Raises:
        PeerError: it is not there, failed, or did not end in time.
    """
    before_s = _children_s()
    with tempfile.TemporaryDirectory() as name:
        command = PEERS[client](program, port, streams, seconds, Path(name))
        try:
            done = subprocess.run(
                command, cwd=name, capture_output=True, timeout=_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PeerError(f"{client}: {error}") from error
    if done.returncode:
        raise PeerError(f"{client} ended with {done.returncode}: {done.stderr[-_WORDS:]!r}")
    return _children_s() - before_s


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _write_prompts(folder: Path, field: str) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text(_PROMPTS * (json.dumps({field: PROMPT}) + "\n"))
    return path
