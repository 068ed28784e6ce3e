"""The gate of models that write, on logits made by hand."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.errors import ParityError
from harness.export.generation.parity import GreedyText, hold_against
from harness.export.generation.rules_parity import shaped
from harness.types import Precision
from harness.types.generation import AnswerRules, GeneratorSettings

TOKENS, VOCABULARY = 12, 50
PROMPT = (5, 6, 7)
Logits = NDArray[np.float32]


def drawn(seed: int) -> Logits:
    return 5 * np.random.default_rng(seed).normal(size=(TOKENS, VOCABULARY)).astype(np.float32)


def settings_of(rules: AnswerRules) -> GeneratorSettings:
    return GeneratorSettings(
        1, 1, 8, VOCABULARY, 64, (2,), None, source_context=64, decoder_start=2, rules=rules
    )


def written(settings: GeneratorSettings, logits: Logits) -> GreedyText:
    """What the library would have written of such logits, under the rules."""
    tokens = tuple(logits.argmax(-1).tolist())
    for _ in range(TOKENS):
        text = GreedyText(PROMPT, tokens, logits)
        tokens = tuple(shaped(settings, text, logits, TOKENS).argmax(-1).tolist())
    return GreedyText(PROMPT, tokens, logits)


@pytest.mark.parametrize(
    "rules",
    [
        AnswerRules(),
        AnswerRules(forced_first=0, forced_last=2),  # BART's
        AnswerRules(banned=(7,)),  # Marian's
        AnswerRules(min_tokens=6, no_repeat=2),
    ],
)
def test_another_model_s_logits_are_refused_under_any_rules(rules: AnswerRules) -> None:
    """Rules take tokens out by minus infinity, beside which no difference would be one."""
    settings = settings_of(rules)
    library = [written(settings, drawn(seed)) for seed in range(3)]
    ruled = partial(shaped, settings, new_tokens=TOKENS)
    same = [one.logits + 1e-5 for one in library]
    assert hold_against(library, same, Precision.FP32, "made", ruled).agreement == 1
    others = [drawn(seed) for seed in (7, 8, 9)]
    with pytest.raises(ParityError, match=r"made writes token \d+ where"):
        hold_against(library, others, Precision.FP32, "made", ruled)


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_logits_that_are_no_numbers_are_refused_whichever_prompt_they_are_of(
    place: int, precision: Precision
) -> None:
    library = [written(settings_of(AnswerRules()), drawn(seed)) for seed in range(4)]
    answered = [one.logits.copy() for one in library]
    answered[place][5] = np.nan
    with pytest.raises(ParityError, match="logits that are no numbers"):
        hold_against(library, answered, precision, "made")
