"""The rows of a token classification: its section of the study, and tagged sentences."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from harness.system.strict import PositiveInt
from harness.tasks.label_values import form_of, index_of, is_generic
from harness.tasks.labels import LabelReader
from harness.tasks.roles.reading import Reading
from harness.tasks.rows import DataTable, refuse
from harness.tasks.samples import Samples, digest_of, draw, is_whole, slice_columns
from harness.tasks.section import PaddedSection
from harness.tasks.spelt_lists import AS_JSON, spelt
from harness.tasks.token_classification.tags import (
    Entity,
    TagNames,
    TagScheme,
    strange_tags,
    tags_of_data,
    tags_of_model,
)

_BLANKS = re.compile(r"[ \t\r\n\f\v]+")
"""What parts words; a no-break space is part of one (10\u00a0000)."""


class TokenClassification(PaddedSection):
    """A tag for each word of a sentence, and the entities that the tags spell (NER)."""

    kind: Literal["token-classification"]
    tokens: str = Field("tokens", description="Column of a sentence's words: a list.")
    tags: str = Field("ner_tags", description="Column of their tags: names (B-PER) or indexes.")
    labels: list[str] | None = Field(
        None,
        description="Names of the tags in the order of the data's indexes; default: those that "
        "the data declares, else the checkpoint's id2label.",
    )
    scheme: TagScheme | None = Field(
        None, description="How the data's tags spell entities; default: recognised."
    )
    mode: Literal["default", "strict"] = Field(
        "default",
        description="default: every tagged word belongs to an entity, as conlleval and seqeval "
        "count; strict: only what the scheme would have written is one (seqeval's mode='strict').",
    )
    max_length: PositiveInt = Field(
        128, description="Tokens; the words of a longer sentence that lie beyond count as missed."
    )
    samples: PositiveInt | None = Field(
        None, description="At most this many sentences, drawn with the seed."
    )


@dataclass(frozen=True)
class Truth:
    """The right tags of the sentences, and how a checkpoint's own are read beside them."""

    entities: tuple[frozenset[Entity], ...]
    """The entities of each sentence."""
    tags: tuple[tuple[str, ...], ...]
    """Tags of each sentence's words, by the checkpoint's names."""
    model: TagNames
    """The checkpoint's tags, in the order of its outputs."""
    strict: bool
    """Whether only what the scheme would have written is an entity."""


@dataclass(frozen=True, kw_only=True)
class TaggedSamples(Samples):
    """Sentences: `texts` has their words joined by spaces."""

    words: tuple[tuple[str, ...], ...]
    truth: Truth | None
    """The right tags; None where the checkpoint's tags are not known."""

    @property
    def undefined_metrics(self) -> Mapping[str, str]:
        """All that is told of entities, where there are none to find."""
        if self.truth is None or any(self.truth.entities):
            return {}
        of_entities = ("entity_f1", "entity_precision", "entity_recall")
        return dict.fromkeys(of_entities, "no sentence has an entity")


def read_sentences(task: TokenClassification, reading: Reading) -> TaggedSamples:
    """Read, check and draw tagged sentences.

    Raises:
        DataError: with every sentence whose words and tags do not go together; or the tags do not
            go with the checkpoint's.
    """
    table = reading.table
    words, tags = _lists(table, task)
    kept = draw(len(words), task.samples, reading.seed)
    drawn = [words[row] for row in kept]
    written = [tags[row] for row in kept]
    truth, reader, note = None, None, ""
    if reading.label_names is not None:
        named, order = _named(table, task, reading, tags)
        source = _scheme(table, task, named)
        model, reader = _tags_of_model(table, reading, order)
        note = _check_types(table, source, model, reading)
        strict = task.mode == "strict"
        chosen = [named[row] for row in kept]
        entities = tuple(source.entities(one, strict=strict) for one in chosen)
        known = _spells_alike(source, model)
        truth = Truth(
            entities=entities,
            tags=tuple(
                tuple(one) if known else tuple(model.write(sorted(found), len(one)))
                for one, found in zip(chosen, entities, strict=True)
            ),
            # Of B and I alone a model's names do not tell which IOB they are: the data's then.
            model=TagNames(model.names, source.scheme if known else model.scheme),
            strict=strict,
        )
    return TaggedSamples(
        texts=tuple(" ".join(one) for one in drawn),
        pairs=None,
        digest=digest_of(drawn, written),
        rows=tuple(kept),
        seed=reading.seed,
        columns=slice_columns(table, task.slices, kept),
        reader=reader,
        label_note=note,
        words=tuple(tuple(one) for one in drawn),
        truth=truth,
    )


def _lists(
    table: DataTable, task: TokenClassification
) -> tuple[list[list[str]], list[list[object]]]:
    """Words and tags of every sentence."""
    problems: list[str] = []
    words: list[list[str]] = []
    tags: list[list[object]] = []
    for row, values in enumerate(table.rows):
        place = table.place(row)
        own = as_list(values.get(task.tokens))
        theirs = as_list(values.get(task.tags))
        if own is None or not all(isinstance(one, str) for one in own):
            problems.append(f"{place}: '{task.tokens}' is not a list of words")
        elif not is_whole("".join(map(str, own))):
            problems.append(f"{place}: a word holds half a surrogate pair, which is no character")
        elif theirs is None:
            problems.append(f"{place}: '{task.tags}' is not a list of tags")
        elif len(own) != len(theirs):
            problems.append(f"{place}: {len(own)} words and {len(theirs)} tags")
        elif not own:
            problems.append(f"{place}: there is no word")
        elif any(form_of(tag) is None for tag in theirs):
            problems.append(f"{place}: a word has no tag")
        else:
            words.append([str(one) for one in own])
            tags.append(theirs)
    refuse(
        table.source,
        problems,
        next_step="a row is a sentence: a list of words and one of as many tags, as in CoNLL's "
        "files (source: conll) or JSON lines with tokens and ner_tags; " + AS_JSON,
    )
    return words, tags


def as_list(value: object) -> list[object] | None:
    """A list as it is, spelt in a CSV's field, or as words between white space; else None."""
    if isinstance(value, str):
        return _spelt_list(value)
    if isinstance(value, Sequence):
        return list(value)
    return None


def _spelt_list(text: str) -> list[object] | None:
    ends = text.strip()[:1] + text.strip()[-1:]
    words = _BLANKS.split(text.strip(" \t\r\n\f\v"))
    if ends not in {"[]", "()"}:
        return [*words] if text.strip() else []
    try:
        found = spelt(text)
    except ValueError:
        return None
    if isinstance(found, list | tuple):
        return [*found]
    return [*words] if ends == "()" else None


def _named(
    table: DataTable, task: TokenClassification, reading: Reading, tags: Sequence[Sequence[object]]
) -> tuple[list[list[str]], tuple[str, ...] | None]:
    """Every tag as a name, and the names that an index counts in where the data has indexes."""
    declared = tuple(task.labels or table.class_names.get(task.tags) or ())
    values = {(type(tag), tag): tag for sentence in tags for tag in sentence}
    distinct = list(values.values())
    if not all(isinstance(tag, str) and index_of(tag) is None for tag in distinct):
        return _by_index(table, reading, tags, declared)
    unknown = sorted({str(tag) for tag in distinct} - set(declared)) if declared else []
    refuse(
        table.source,
        [f"tags {', '.join(unknown)} are none of the labels {', '.join(declared)}"]
        if unknown
        else [],
        next_step="set the task's 'labels' to the names of all tags",
    )
    return [[str(tag) for tag in sentence] for sentence in tags], declared or None


def _by_index(
    table: DataTable,
    reading: Reading,
    tags: Sequence[Sequence[object]],
    declared: tuple[str, ...],
) -> tuple[list[list[str]], tuple[str, ...]]:
    outputs = reading.teacher.outputs if reading.teacher else tuple(reading.label_names or ())
    names = declared or outputs
    indexes = [[index_of(tag) for tag in sentence] for sentence in tags]
    wrong = {
        str(tag)
        for sentence, found in zip(tags, indexes, strict=True)
        for tag, index in zip(sentence, found, strict=True)
        if index is None or not 0 <= index < len(names)
    }
    problems = []
    if wrong:
        shown = ", ".join(sorted(wrong)[:8])
        problems.append(f"tags {shown} are no indexes of the {len(names)} tags {', '.join(names)}")
    elif is_generic(names):
        problems.append(
            f"the tags are indexes without names: {reading.model} calls its outputs "
            f"{names[0]} to {names[-1]}"
        )
    refuse(
        table.source,
        problems,
        next_step="set the task's 'labels' to the names of all tags, in the order of their "
        "indexes: [O, B-PER, I-PER, ...]",
    )
    return [[names[index or 0] for index in found] for found in indexes], names


def _scheme(
    table: DataTable, task: TokenClassification, named: Sequence[Sequence[str]]
) -> TagNames:
    try:
        found = tags_of_data(named) if task.scheme is None else None
    except ValueError as error:
        refuse(
            table.source,
            [str(error)],
            next_step="set the task's 'scheme' to one of "
            f"{', '.join(TagScheme)}: how the tags spell entities",
        )
        raise
    names = tuple(sorted({tag for sentence in named for tag in sentence}))
    source = found or TagNames(names, task.scheme or TagScheme.IOB2)
    strange = strange_tags(source)
    refuse(
        table.source,
        [f"tags {', '.join(strange[:8])} are neither O nor begin with a letter such as B-"]
        if strange
        else [],
        next_step="write each tag as O, or as a letter and a type: B-PER, I-PER",
    )
    return source


def _tags_of_model(
    table: DataTable, reading: Reading, order: tuple[str, ...] | None
) -> tuple[TagNames, LabelReader]:
    """The names of the checkpoint's outputs: its own, else the data's."""
    outputs = tuple(reading.label_names or ())
    names = outputs
    if is_generic(outputs):
        teacher = reading.teacher.names if reading.teacher else None
        names = order or teacher or outputs
        if is_generic(names) or len(names) != len(outputs):
            refuse(
                table.source,
                [
                    f"{reading.model} does not name its {len(outputs)} outputs "
                    f"({outputs[0]} to {outputs[-1]})"
                    + (f", and the data has {len(order)} tags" if order else "")
                ],
                next_step="set the task's 'labels' to the names of all tags, in the order of "
                "the checkpoint's outputs",
            )
    try:
        model = tags_of_model(names)
    except ValueError as error:
        refuse(table.source, [f"{reading.model}: {error}"])
        raise
    return model, LabelReader(reading.model, outputs, order=names, class_names=names)


def _check_types(table: DataTable, data: TagNames, model: TagNames, reading: Reading) -> str:
    """Refuse entities that the checkpoint cannot name; returns what to know of the schemes."""
    unknown = sorted(set(data.types) - set(model.types))
    problem = (
        f"tags do not match those of {reading.model}: the data has entities of "
        f"{', '.join(data.types)}, the checkpoint knows {', '.join(model.types) or 'none'}: "
        f"{', '.join(unknown)} would never be found"
    )
    refuse(
        table.source,
        [problem] if unknown else [],
        next_step="rename the data's tags as the checkpoint has them (its config.json's id2label)",
    )
    missing = sorted(set(model.types) - set(data.types))
    notes = []
    if missing:
        notes.append(
            f"the data has no entity of {', '.join(missing)}: each that {reading.model} finds "
            "counts as wrong"
        )
    known = {model.parse(name) for name in model.names}
    lacking = [name for name in data.names if data.parse(name) not in known and data.parse(name)[1]]
    if data.scheme is model.scheme and lacking:
        notes.append(
            f"{reading.model} has no tag {', '.join(lacking)}: entities are compared, and in the "
            "token accuracy such a word is always wrong"
        )
    elif not _spells_alike(data, model):
        notes.append(
            f"the data's tags are {data.scheme}, the checkpoint's {model.scheme}: entities are "
            "compared, and token accuracy in the checkpoint's tags"
        )
    return "; ".join(notes)


def _spells_alike(data: TagNames, model: TagNames) -> bool:
    """Whether a data set's tags are the checkpoint's own, so that they compare word by word."""
    plain = {TagScheme.IO, TagScheme.IOB1, TagScheme.IOB2}
    schemes = data.scheme is model.scheme or {data.scheme, model.scheme} <= plain
    return schemes and set(data.names) <= set(model.names)
