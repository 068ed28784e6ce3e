"""Text that comes in tokens: whole characters, stop strings, special tokens."""

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as some
from tiny_models import byte_level_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from harness.serving.generation.text import AnswerText, PieceDecoder

BYTES = byte_level_tokenizer().backend_tokenizer
"""Any byte is a token of its own: a rocket is four."""


def metaspace():
    """SentencePiece's way: a word's first piece brings the space, but not at the text's begin."""
    pieces = {"<unk>": 0, "▁the": 1, "▁cat": 2, "s": 3, "▁": 4, "c": 5, "at": 6}
    tokenizer = Tokenizer(models.BPE(pieces, [], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<x>", "</s>"])
    return tokenizer


def word_pieces():
    pieces = {"[UNK]": 0, "play": 1, "##ing": 2, "cat": 3, ",": 4}
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["[SEP]"])
    return tokenizer


def byte_pieces():
    """Llama's way: a character that is no piece of its own is bytes, and a space is the word's."""
    pieces = {"<unk>": 0, "▁the": 1, "s": 2, "▁": 3}
    pieces |= {f"<0x{byte:02X}>": len(pieces) + place for place, byte in enumerate("🚀é".encode())}
    tokenizer = Tokenizer(models.BPE(pieces, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1),
        ]
    )
    tokenizer.add_special_tokens(["<s>", "<x>"])
    return tokenizer


def specials_of(tokenizer):
    added = tokenizer.get_added_tokens_decoder().items()
    return {number: token.content for number, token in added if token.special}


def answer(tokens, stop=(), tokenizer=BYTES, specials=None, min_tokens=0):
    """The pieces that are given out; ends where a stop string comes."""
    text = AnswerText(tokenizer, stop, specials or {}, min_tokens)
    pieces = []
    for token in tokens:
        pieces.append(text.push(token))
        if text.stopped:
            return pieces, True
    pieces[-1:] = [pieces[-1] + text.finish()]
    return pieces, text.stopped


def tokens_of(text):
    return BYTES.encode(text, add_special_tokens=False).ids


@given(some.text(max_size=30))
def test_pieces_together_are_the_text(text):
    decoder = PieceDecoder(BYTES)
    pieces = [decoder.push(token) for token in tokens_of(text)]
    assert "".join(pieces) + decoder.left() == text
    assert not any("\ufffd" in piece for piece in pieces) or "\ufffd" in text


@given(some.lists(some.integers(2, 319), min_size=1, max_size=40))
def test_pieces_of_any_tokens_are_what_all_tokens_decode_to(tokens):
    """Bytes that are no text too: a model may write anything."""
    decoder = PieceDecoder(BYTES)
    pieces = [decoder.push(token) for token in tokens]
    assert "".join(pieces) + decoder.left() == BYTES.decode(tokens, skip_special_tokens=False)


@pytest.mark.parametrize("tokenizer", [metaspace(), word_pieces()])
@given(tokens=some.lists(some.integers(1, 4), min_size=1, max_size=12))
def test_what_a_token_looks_like_depends_on_the_one_before(tokenizer, tokens):
    decoder = PieceDecoder(tokenizer)
    pieces = [decoder.push(token) for token in tokens]
    assert "".join(pieces) + decoder.left() == tokenizer.decode(tokens)


@pytest.mark.parametrize("tokenizer", [metaspace(), word_pieces(), byte_pieces(), BYTES])
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(some.data())
def test_special_tokens_anywhere_leave_the_text_that_the_library_makes(tokenizer, data):
    """First, last, in the middle, one behind the other, and between a character's bytes."""
    specials = specials_of(tokenizer)
    last = tokenizer.get_vocab_size() - 1
    token = some.one_of(some.integers(1, last), some.sampled_from(sorted(specials)))
    tokens = data.draw(some.lists(token, min_size=1, max_size=16))
    # ByteFallback takes a whole run of bytes back for its last ones: what was given out stays.
    assume(tokenizer is BYTES or "\ufffd" not in tokenizer.decode(tokens))
    for stop in ((), ("a stop that never comes <x>",)):
        pieces, stopped = answer(tokens, stop, tokenizer, specials)
        assert ("".join(pieces), stopped) == (tokenizer.decode(tokens), False)


def test_a_word_behind_a_special_token_keeps_its_space():
    tokenizer = metaspace()
    mark = tokenizer.token_to_id("<x>")
    pieces, _ = answer([1, 2, mark, 2, 1], tokenizer=tokenizer, specials=specials_of(tokenizer))
    assert "".join(pieces) == "the cat cat the"


def test_half_a_character_before_the_special_token_that_stops_is_told():
    rocket = [BYTES.token_to_id(one) for one in ("ð", "Ł", "ļ", "Ģ")]
    end = BYTES.token_to_id("<|begin|>")
    tokens, specials = [*rocket, *rocket[:2], end, *rocket[2:]], {end: "<|begin|>"}
    pieces, stopped = answer(tokens, ["<|begin|>"], specials=specials)
    assert ("".join(pieces), stopped) == ("🚀\ufffd", True)
    pieces, stopped = answer(tokens, ["<|begin|>"], specials=specials, min_tokens=len(tokens))
    assert ("".join(pieces), stopped) == ("🚀🚀", False)


def test_a_character_is_given_out_when_it_is_whole():
    tokens = [BYTES.token_to_id(one) for one in ("ð", "Ł", "ļ", "Ģ")]  # a rocket's four bytes
    assert BYTES.decode(tokens) == "🚀"
    assert answer(tokens) == (["", "", "", "🚀"], False)
    assert answer(tokens[:2])[0] == ["", "\ufffd"]


@pytest.mark.parametrize(
    ("text", "stop", "given_out", "stopped"),
    [
        ("one two three", ["two"], "one ", True),
        ("one two three", ["three", "two"], "one ", True),
        ("one two three", ["twenty"], "one two three", False),
        ("one tw", ["two"], "one tw", False),
        ("ab", ["b", "ab"], "", True),
        ("aab", ["ab"], "a", True),
        ("naïve café", ["é"], "naïve caf", True),
        ("\n\nx", ["\n\n"], "", True),
    ],
)
def test_an_answer_ends_before_its_stop_string(text, stop, given_out, stopped):
    singles = [BYTES.token_to_id(one) for one in _bytes_of(text)]
    pieces, ended = answer(singles, stop)
    assert ("".join(pieces), ended) == (given_out, stopped)


def _bytes_of(text):
    """A token a byte, so that every stop string is cut across tokens."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)[
        0
    ][0]


@given(some.text(alphabet="abc", max_size=20), some.lists(some.text("abc", min_size=1, max_size=4)))
def test_stop_strings_are_found_as_in_the_whole_text(text, stop):
    pieces, stopped = answer(tokens_of(text), stop) if text else ([""], False)
    places = [text.find(one) for one in stop if one in text]
    # What a token brings behind the place is gone, so the first that is complete decides.
    ends = [text.find(one) + len(one) for one in stop if one in text]
    assert stopped == bool(places)
    given_out = "".join(pieces)
    assert text.startswith(given_out)
    if not places:
        assert given_out == text
    elif len(set(ends)) == len(ends):
        assert min(places) <= len(given_out) <= max(places)


def test_nothing_that_may_begin_a_stop_string_is_given_out_early():
    singles = [BYTES.token_to_id(one) for one in "xENyEND"]
    assert answer(singles, ["END"])[0] == ["x", "", "", "ENy", "", "", ""]


def test_a_special_token_stops_by_its_name_and_is_no_text():
    end, tokens = BYTES.token_to_id("<|begin|>"), tokens_of("cat")
    specials = {end: "<|begin|>"}
    pieces, stopped = answer([*tokens, end, *tokens], ["<|begin|>"], specials=specials)
    assert ("".join(pieces), stopped) == ("cat", True)
    pieces, stopped = answer([*tokens, end, *tokens], ["dog"], specials=specials)
    assert ("".join(pieces), stopped) == ("catcat", False)
    pieces, stopped = answer([*tokens, end, *tokens], ["t<|be", "<|begin|>c"], specials=specials)
    assert ("".join(pieces), stopped) == ("ca", True)


def test_min_tokens_come_whatever_stops():
    singles = [BYTES.token_to_id(one) for one in "abab"]
    assert answer(singles, ["b"], min_tokens=3) == (["a", "b", "a", ""], True)
