"""Which model that writes an external server answers with, where its file cannot be read.

As `identity` does for models of tensors: a model is known by its address, by what its server says
of it and by what it writes, greedily, behind a few of the study's own prompts. These texts are
compared whole: they are asked one at a time, while nothing is driven, so that nothing but the model
changes them. A model whose greedy texts differ all the same is only known by what is said of it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.errors import ExchangedError
from harness.quality.writing import Writer
from harness.serving.external.server import REMOTE_DIGEST
from harness.types import ModelVariant
from harness.types.generation import SamplingParameters

PROMPTS = 2
TOKENS = 16
"""Of each text that a model is known by."""
ATTEMPTS = 3
"""Before texts count as another model's."""

TellOf = Callable[[str], str]
"""What the server says of a model now, by its name there."""


@dataclass(frozen=True)
class _Known:
    name: str
    told: str
    prompts: tuple[tuple[int, ...], ...]
    sampling: SamplingParameters
    texts: tuple[str, ...] | None
    """None where it does not repeat itself."""


class WrittenIdentities:
    """Of the models of one server that is already up.

    Args:
        writer: the way to their texts.
        url: of the server: part of every identity.
        tell_of: asks the server about a model.
    """

    def __init__(self, writer: Writer, url: str, tell_of: TellOf) -> None:
        self._writer = writer
        self._url = url.rstrip("/")
        self._tell_of = tell_of
        self._known: dict[str, _Known] = {}

    def establish(
        self,
        model: str,
        prompts: Sequence[tuple[int, ...]],
        stop: tuple[str, ...],
        max_new_tokens: int,
        warn: Callable[[str], None],
    ) -> str:
        """The model's identity: `remote:` and a digest, instead of its file's.

        Args:
            model: its name on the server.
            prompts: of the study, in tokens.
            stop: texts that end an answer.
            max_new_tokens: the longest answer.
            warn: called with a model that cannot be known by its texts.

        Raises:
            ServerError: it does not answer.
        """
        sampling = SamplingParameters(max_tokens=min(TOKENS, max_new_tokens), stop=stop)
        asked = tuple(sorted(dict.fromkeys(prompts), key=len)[:PROMPTS])
        known = _Known(model, self._tell_of(model), asked, sampling, None)
        texts = self._ask(known)
        if texts == self._ask(known):
            known = _Known(model, known.told, asked, sampling, texts)
            name = json.dumps(texts)
        else:
            warn(
                f"the model '{model}' at {self._url} writes other texts behind the same prompts at "
                "temperature 0: it is only known by what its server says of it, and nothing of it "
                "is taken from an earlier run"
            )
            name = secrets.token_hex(16)
        parts = [self._url, model, known.told, json.dumps(asked), name]
        identity = REMOTE_DIGEST + hashlib.sha256("\n".join(parts).encode()).hexdigest()
        self._known[identity] = known
        return identity

    def check(self, variant: ModelVariant) -> None:
        """Make sure that the server still has the model that a variant was made of.

        Raises:
            ExchangedError: it says something else of it now, or it writes other texts.
            ServerError: it does not answer.
        """
        known = self._known.get(variant.sha256)
        if known is None:
            return
        if self._tell_of(known.name) != known.told:
            raise self._exchanged(known, "what it says of it is another than at the start")
        if known.texts is None:
            return
        if all(self._ask(known) != known.texts for _ in range(ATTEMPTS)):
            raise self._exchanged(
                known, "it writes other texts behind the same prompts than at the start"
            )

    def _ask(self, known: _Known) -> tuple[str, ...]:
        return tuple(
            self._writer.write(known.name, one, known.sampling).text for one in known.prompts
        )

    def _exchanged(self, known: _Known, how: str) -> ExchangedError:
        return ExchangedError(
            f"the model '{known.name}' at {self._url} was replaced while it was measured: {how}",
            next_step="continue with --resume: what was taken of the one before is taken again",
        )
