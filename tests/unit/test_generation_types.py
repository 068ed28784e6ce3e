"""What a request of a generating model may ask, and how it is told what it may not."""

import ast
import json
import sys
from pathlib import Path

import pytest

from harness.types import generation
from harness.types.generation import (
    AnswerRules,
    FinishReason,
    GeneratorSettings,
    ParameterError,
    SamplingParameters,
)


def test_an_empty_object_is_greedy_and_short():
    greedy = SamplingParameters()
    assert (greedy.temperature, greedy.max_tokens, greedy.stop) == (0.0, 16, ())
    assert SamplingParameters.from_json(b"") == SamplingParameters.from_json("{}") == greedy


@pytest.mark.parametrize(
    ("stop", "read"), [('"\\n"', ("\n",)), ('["a", "b"]', ("a", "b")), ("null", ()), ("[]", ())]
)
def test_stop_is_a_string_or_a_list(stop, read):
    assert SamplingParameters.from_json(f'{{"stop": {stop}}}').stop == read


def test_what_is_written_is_read_again():
    asked = SamplingParameters(
        max_tokens=3, temperature=0.7, top_k=5, top_p=0.9, seed=0, stop=("é",), ignore_eos=True
    )
    assert SamplingParameters.from_json(asked.to_json()) == asked
    assert SamplingParameters().to_json() == "{}"


def test_settings_of_a_decoder_are_read_as_they_were_written_also_by_an_earlier_release():
    rules = AnswerRules(banned=(3, 4))
    settings = GeneratorSettings(
        2, 1, 8, 320, 96, (0,), None, rules=rules, split_special_tokens=True
    )
    assert GeneratorSettings.from_json(settings.to_json()) == settings
    earlier = json.loads(settings.to_json())
    del earlier["split_special_tokens"], earlier["rules"]
    read = GeneratorSettings.from_json(json.dumps(earlier))
    assert (read.split_special_tokens, read.rules) == (False, AnswerRules())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[1]", "must be a JSON object"),
        ('{"temprature": 1}', "has no 'temprature'; it takes max_tokens, temperature"),
        ('{"max_tokens": -1}', "max_tokens is -1: it must be 0 or more"),
        ('{"max_tokens": 1.5}', "max_tokens is 1.5: it must be of type int"),
        ('{"max_tokens": true}', "max_tokens is True: it must be of type int"),
        ('{"ignore_eos": 1}', "ignore_eos is 1: it must be of type bool"),
        ('{"temperature": -0.1}', "temperature is -0.1: it must be 0 (greedy) or more"),
        ('{"temperature": NaN}', "temperature is nan"),
        ('{"temperature": Infinity}', "temperature is inf"),
        (f'{{"temperature": 1{"0" * 400}}}', "temperature is 1000"),
        (f'{{"seed": {2**63}}}', "seed is 9223372036854775808: it must be a number of 64 bits"),
        (f'{{"seed": {-(2**63) - 1}}}', "seed is -9223372036854775809"),
        ('{"top_p": 0}', "top_p is 0: it must be above 0 and at most 1"),
        ('{"top_k": -2}', "top_k is -2"),
        ('{"stop": ""}', "stop is ['']: it must be strings that are not empty"),
        ('{"stop": [1]}', "stop is [1]: it must be a string or a list of strings"),
        ('{"min_tokens": 17}', "min_tokens is 17: it must be from 0 to max_tokens"),
    ],
)
def test_what_means_nothing_is_refused_in_words(text, said):
    with pytest.raises(ParameterError) as refused:
        SamplingParameters.from_json(text)
    assert said in str(refused.value)


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(ParameterError) as refused:
        SamplingParameters.from_json('{"seed": "' + "x" * 10_000 + '"}')
    assert len(str(refused.value)) < 200


def test_a_reason_reads_as_it_is_sent():
    assert [str(one) for one in FinishReason] == ["", "stop", "length", "cancelled"]


def test_the_file_needs_the_standard_library_alone():
    """It is copied beside the served model, where there is no harness."""
    tree = ast.parse(Path(generation.__file__).read_text(encoding="utf-8"))
    modules = {
        (alias.name if isinstance(node, ast.Import) else str(node.module)).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert modules <= sys.stdlib_module_names
