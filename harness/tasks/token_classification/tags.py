"""Tags of words, and the entities that they spell: IO, IOB1, IOB2, IOBES, BILOU and BMES.

A tag is `O`, or a prefix and a type (`B-PER`). Read leniently, as conlleval and seqeval's default
do, every tagged word belongs to an entity whatever its prefix; read strictly, only what its scheme
would have written counts. Types without a prefix (IO) are read as inside an entity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

OUTSIDE = "O"
NO_TAG = ""
"""Tag of a word that a model was not asked about: it lies beyond the tokens that are sent."""
_PREFIXED = re.compile(r"([BIESLUMW])(?:[-_](.+))?", re.DOTALL)
_SUFFIXED = re.compile(r".+[-_][BIESLUMW]", re.DOTALL)
_SMALL = re.compile(r"[bi][-_].+", re.DOTALL)
_MARK = re.compile(r"[\[<].*[\]>]|x|pad|none|null|nan|other|o|_|-", re.DOTALL | re.IGNORECASE)
"""What stands beside tags for a word that is in no entity, or for no word at all."""
_OTHER_LETTERS = {"U": "S", "W": "S", "L": "E", "M": "I"}
"""BILOU's U and L, the M of BMES and the W of BMEWO, in the letters of IOBES."""

Entity = tuple[str, int, int]
"""Type, first word and last word (included)."""


class TagScheme(StrEnum):
    """How tags spell where entities begin and end."""

    IO = "io"
    """No beginnings: a run of words of one type is one entity."""
    IOB1 = "iob1"
    """B- only where an entity follows another of its type at once."""
    IOB2 = "iob2"
    """B- on every first word."""
    IOBES = "iobes"
    """B-, I-, E- of several words, S- of a single one; also called BIOES. BMES has M- for I-."""
    BILOU = "bilou"
    """Like BIOES, with L- for E- and U- for S-."""


@dataclass(frozen=True)
class TagNames:
    """The tags that a data set or a model uses, and what each says."""

    names: tuple[str, ...]
    scheme: TagScheme

    def parse(self, tag: str) -> tuple[str, str]:
        """Prefix (O, B, I, E or S) and type; what is not a tag of the scheme ([CLS]) is outside.

        So is the empty text, which stands for a word without a tag.
        """
        if tag in {OUTSIDE, NO_TAG}:
            return OUTSIDE, ""
        if self._bare:
            return "I", tag
        match = _PREFIXED.fullmatch(tag)
        if match is None:
            return OUTSIDE, ""
        return _OTHER_LETTERS.get(match[1], match[1]), match[2] or "_"

    @property
    def types(self) -> tuple[str, ...]:
        """The types of entities, sorted."""
        return tuple(sorted({kind for _, kind in map(self.parse, self.names) if kind}))

    def entities(self, tags: Sequence[str], *, strict: bool = False) -> frozenset[Entity]:
        """The entities that a sentence's tags spell.

        Args:
            tags: one a word.
            strict: whether only sequences that the scheme would have written count. IO and IOB1
                allow every sequence.
        """
        read = [self.parse(tag) for tag in tags]
        if strict and self.scheme in {TagScheme.IOB2, TagScheme.IOBES, TagScheme.BILOU}:
            return frozenset(_strict(read, ends=self.scheme is not TagScheme.IOB2))
        return frozenset(_lenient(read))

    def write(self, entities: Sequence[Entity], words: int) -> list[str]:
        """The tags of a sentence that spell its entities in this scheme.

        One that is not among the names (I-LOC of a model that never saw a place of two words) is
        written all the same: that it is none of them is what is wrong with the model.

        Args:
            entities: none of which overlap.
            words: in the sentence.
        """
        spelt = {self.parse(name): name for name in reversed(self.names)}
        tags = [spelt.get((OUTSIDE, ""), OUTSIDE)] * words
        ended: dict[str, int] = {}
        for kind, first, last in sorted(entities, key=lambda one: one[1]):
            for place in range(first, last + 1):
                prefix = self._prefix(place, first, last, follows=ended.get(kind) == first - 1)
                tags[place] = spelt.get((prefix, kind), f"{prefix}-{kind}")
            ended[kind] = last
        return tags

    def _prefix(self, place: int, first: int, last: int, *, follows: bool) -> str:
        ends = self.scheme in {TagScheme.IOBES, TagScheme.BILOU}
        if ends and first == last:
            return "S"
        if place == first and self.scheme is not TagScheme.IO:
            return "B" if self.scheme is not TagScheme.IOB1 or follows else "I"
        return "E" if ends and place == last else "I"

    @cached_property
    def _bare(self) -> bool:
        """Whether the tags are types without a prefix."""
        tagged = (name for name in self.names if name != OUTSIDE)
        return self.scheme is TagScheme.IO and not all(map(_PREFIXED.fullmatch, tagged))


def tags_of_model(names: Sequence[str]) -> TagNames:
    """What a model's outputs spell; those with B- and I- alone are taken for IOB2.

    For IOB1 where a type has no B-: IOB2 could not begin an entity of it.

    Raises:
        ValueError: the type stands before the letter (`PER-B`), or the letter is a small one.
    """
    scheme = _scheme_of_names(names)
    if scheme is None:
        read = {TagNames((), TagScheme.IOB2).parse(name) for name in names}
        begun = {kind for prefix, kind in read if prefix == "B"}
        inside = {kind for prefix, kind in read if prefix == "I"}
        scheme = TagScheme.IOB2 if inside <= begun else TagScheme.IOB1
    return TagNames(tuple(names), scheme)


def tags_of_data(sentences: Sequence[Sequence[str]]) -> TagNames:
    """The scheme of tagged sentences, where it is certain.

    Raises:
        ValueError: with what cannot be told.
    """
    names = sorted({tag for tags in sentences for tag in tags})
    scheme = _scheme_of_names(names)
    if scheme is None:
        scheme = _iob_of(sentences)
    return TagNames(tuple(names), scheme)


def strange_tags(read: TagNames) -> tuple[str, ...]:
    """The tags of a data set that say nothing in its scheme: neither outside nor of a type."""
    outside = (name for name in read.names if read.parse(name)[0] == OUTSIDE)
    return tuple(
        one for one in outside if one not in {OUTSIDE, NO_TAG} and not _MARK.fullmatch(one)
    )


def _scheme_of_names(names: Sequence[str]) -> TagScheme | None:
    """The tagging scheme by the names; None where only B- and I- leave open which IOB it is."""
    tagged = [name for name in names if name != OUTSIDE and not _MARK.fullmatch(name)]
    lettered = [match for match in map(_PREFIXED.fullmatch, tagged) if match]
    matches = [match for match in lettered if match[2]]
    if not matches and len(lettered) == len(tagged):  # of one type, which has no name: B, I, O
        matches = lettered
    if not matches and (small := [name for name in tagged if _SMALL.fullmatch(name)]):
        raise ValueError(
            f"tags such as {small[0]} begin with a small letter; they are read with a capital one "
            "(B-PER)"
        )
    suffixed = [name for name in tagged if _SUFFIXED.fullmatch(name)]
    if len(matches) < len(tagged) == len(suffixed):
        raise ValueError(
            f"tags such as {tagged[0]} have their letter behind the type; it is read before it "
            "(B-PER)"
        )
    letters = {match[1] for match in matches}
    if not letters & {"B", "I"} or 2 * len(matches) < len(tagged):
        return TagScheme.IO
    if letters & {"L", "U"}:
        return TagScheme.BILOU
    if letters & {"E", "S", "M", "W"}:
        return TagScheme.IOBES
    return None if "B" in letters else TagScheme.IO


def _iob_of(sentences: Sequence[Sequence[str]]) -> TagScheme:
    """IOB1 writes B- only behind an entity of the same type, IOB2 on every first word."""
    reader = TagNames((), TagScheme.IOB2)
    needless, missing = "", ""
    for number, tags in enumerate(sentences):
        before = (OUTSIDE, "")
        for word, tag in enumerate(tags):
            prefix, kind = reader.parse(tag)
            place = f"{tag} of word {word + 1} in sentence {number + 1}"
            if prefix == "B" and before[1] != kind:
                needless = needless or place
            if prefix == "I" and before[1] != kind:
                missing = missing or place
            before = prefix, kind
    if needless and missing:
        raise ValueError(
            f"the tags are neither IOB1 nor IOB2: {needless} begins an entity as IOB2 writes it, "
            f"{missing} as IOB1 does"
        )
    return TagScheme.IOB1 if missing else TagScheme.IOB2


def _lenient(read: Sequence[tuple[str, str]]) -> Iterator[Entity]:
    """Entities as conlleval reads them: ended by another type, before B or S, after E or S."""
    first = 0
    before, kind = OUTSIDE, ""
    for place, (prefix, own) in enumerate([*read, (OUTSIDE, "")]):
        begins = prefix in {"B", "S"} or before in {OUTSIDE, "E", "S"} or own != kind
        if begins and before != OUTSIDE:
            yield kind, first, place - 1
        if begins:
            first = place
        before, kind = prefix, own


def _strict(read: Sequence[tuple[str, str]], *, ends: bool) -> Iterator[Entity]:
    """Entities exactly as the scheme writes them: B, then I, and E at the end where it has one."""
    first: int | None = None
    kind = ""
    for place, (prefix, own) in enumerate([*read, (OUTSIDE, "")]):
        goes_on = first is not None and own == kind and prefix in {"I", "E"}
        if first is not None and not goes_on:
            if not ends:
                yield kind, first, place - 1
            first = None
        if goes_on and prefix == "E" and first is not None:
            yield kind, first, place
            first = None
        if prefix == "S":
            yield own, place, place
        if prefix == "B":
            first, kind = place, own
