"""Where a sentence encoder lost quality: chain, slices, examples, on vectors made by hand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import ndcg_score

from harness.errors import DataError
from harness.quality.collection import read_outcomes, write_outcomes
from harness.quality.losses import Rows, loss_chain, slice_losses, slicings
from harness.quality.scores import score
from harness.tasks.encoding import take_rows
from harness.tasks.losses import Step
from harness.tasks.registry import family_of
from harness.tasks.sentence_embedding.outcomes import EmbeddingOutcomes, read_vectors
from harness.tasks.sentence_embedding.rows import EmbeddingDataset, Retrieval, ScoredPairs
from harness.types import Role
from harness.words.numbers import number

FAMILY = family_of("sentence-embedding")
PAIRS = 80
RNG = np.random.default_rng(3)
TEACHER = RNG.normal(size=(2 * PAIRS, 6)).astype(np.float32)
NOISE = RNG.normal(size=TEACHER.shape).astype(np.float32)
"""Text 2n is compared with text 2n + 1."""


def near(vectors):
    first, second = vectors[::2].astype(float), vectors[1::2].astype(float)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(axis=1) / lengths


SCORES = near(TEACHER) + RNG.normal(size=PAIRS) * 0.2


def dataset(*, scored=True, retrieval=None, size=2 * PAIRS):
    pairs = ScoredPairs(
        tuple(range(0, 2 * PAIRS, 2)), tuple(range(1, 2 * PAIRS, 2)), tuple(SCORES.tolist())
    )
    return EmbeddingDataset(
        groups=(), size=size, truncated=0, padding_share=0.0, digest="", pad_token_id=0,
        scored=pairs if scored else None, retrieval=retrieval, similarity="cosine",
    )  # fmt: skip


def said(vectors, name="teacher"):
    return EmbeddingOutcomes(
        variant=name, sha256="d", unanswered=np.isnan(vectors).all(axis=1), vectors=vectors
    )


def chain_of(steps, data):
    made = [Step(name, said(vectors), data) for name, vectors in steps]
    return loss_chain(made, seed=0)


def rho(vectors, kept=slice(None)):
    return stats.spearmanr(near(vectors)[kept], SCORES[kept]).statistic


def test_each_step_loses_what_scipy_says_and_the_steps_add_up():
    student, int8 = TEACHER + 0.5 * NOISE, TEACHER + 0.8 * NOISE
    steps = [("teacher", TEACHER), ("distillation", student), ("quantisation", int8)]
    chain = chain_of([*steps, ("serving", int8)], dataset())
    assert (chain.metric, chain.samples, chain.left_out) == ("sts_spearman", PAIRS, 0)
    assert [link.quality for link in chain.links] == [
        pytest.approx(rho(vectors)) for vectors in (TEACHER, student, int8, int8)
    ]
    lost = [link.loss.value for link in chain.links]
    assert lost[1:3] == pytest.approx([rho(TEACHER) - rho(student), rho(student) - rho(int8)])
    assert lost[3] == 0
    assert chain.total.value == pytest.approx(sum(lost))
    assert chain.total.low < chain.total.value < chain.total.high
    served = chain.links[3]
    assert (served.changed, served.cosine) == (0, pytest.approx(1.0))
    own = [np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)
           for a, b in zip(TEACHER.astype(float), student.astype(float), strict=True)]  # fmt: skip
    assert chain.links[1].cosine == pytest.approx(np.mean(own))
    assert chain.links[1].changed == sum(cosine < 0.999 for cosine in own)


def test_vectors_of_other_dimensions_have_no_cosine_and_a_loss_all_the_same():
    student = TEACHER[:, :4]
    chain = chain_of([("teacher", TEACHER), ("distillation", student)], dataset())
    assert chain.links[1].cosine is None
    assert chain.links[1].changed == 2 * PAIRS
    assert chain.total.value == pytest.approx(rho(TEACHER) - rho(student))


def test_a_pair_that_a_step_left_unanswered_counts_in_none():
    holed = TEACHER.copy()
    holed[5] = np.nan  # of pair 2
    kept = np.arange(PAIRS) != 2
    chain = chain_of([("teacher", TEACHER), ("serving", holed)], dataset())
    assert (chain.samples, chain.left_out) == (PAIRS - 1, 1)
    assert chain.links[0].quality == pytest.approx(rho(TEACHER, kept))
    assert chain.total.value == 0


def test_a_pair_without_an_answer_is_left_out_on_both_sides_and_a_query_finds_nothing():
    count = 150
    draw = np.random.default_rng(8)
    vectors = draw.normal(size=(2 * count, 6)).astype(np.float32)
    right = near(vectors) + draw.normal(size=count) * 0.2
    even = tuple(range(0, 2 * count, 2))
    data = replace(
        dataset(retrieval=retrieval_set(), size=2 * count),
        scored=ScoredPairs(even, tuple(one + 1 for one in even), tuple(right.tolist())),
    )
    student = vectors + 0.3 * draw.normal(size=vectors.shape).astype(np.float32)
    holed = student.copy()
    holed[5] = np.nan  # of pair 2; query 5 of the retrieval set
    known = SimpleNamespace(name="student", family="search", role=Role.STUDENT)

    def scores(answered):
        found = score(
            said(answered, "student"), data, variant=known, teacher=said(vectors), seed=0
        )  # fmt: skip
        return {one.metric: one for one in found}

    found, whole = scores(holed), scores(student)
    kept = np.arange(count) != 2
    own, theirs = (
        stats.spearmanr(near(one)[kept], right[kept]).statistic for one in (student, vectors)
    )
    spearman = found["sts_spearman"]
    assert (spearman.samples, spearman.value) == (count - 1, pytest.approx(own))
    assert spearman.relative_to_teacher == pytest.approx(own / theirs)
    recall = whole["recall_at_100"].value
    assert found["recall_at_100"].value == pytest.approx(recall - 1 / 40)
    assert found["recall_at_100"].relative_to_teacher < whole["recall_at_100"].relative_to_teacher
    holed[[7, 9]] = np.nan  # now 2% of the pairs
    assert set(scores(holed)) == {"ndcg_at_10", "recall_at_10", "recall_at_100"}


def test_each_model_s_documents_are_ranked_by_its_own_similarity(tmp_path):
    """A teacher of dot products beside a student of cosines, whichever's data set is at hand."""
    draw = np.random.default_rng(0)
    student = draw.normal(size=(140, 6)).astype(np.float32)
    longer = student * np.exp(draw.normal(size=(140, 1))).astype(np.float32)
    one = dataset(scored=False, retrieval=retrieval_set(), size=140)
    dots = replace(one, similarity="dot")
    asked = [SimpleNamespace(rows=np.arange(140))]

    def answered(name, vectors, data):
        known = SimpleNamespace(name=name, sha256="d", outputs=FAMILY.outputs(6))
        answer = read_vectors({"sentence_embedding": vectors})
        made = FAMILY.outcomes(known, data, [(batch, answer) for batch in asked])
        write_outcomes(tmp_path / f"{name}.parquet", made, data)
        return read_outcomes(tmp_path / f"{name}.parquet")

    teacher, own = answered("teacher", longer, dots), answered("student", student, one)
    known = SimpleNamespace(name="student", family="search", role=Role.STUDENT)

    def value(outcomes, data, **beside):
        found = score(outcomes, data, variant=known, seed=0, **beside)
        return next(score for score in found if score.metric == "ndcg_at_10")

    theirs, mine = value(teacher, dots, teacher=None), value(own, one, teacher=teacher)
    assert theirs.value != pytest.approx(value(said(longer), one, teacher=None).value)
    assert mine.relative_to_teacher == pytest.approx(mine.value / theirs.value)
    steps = [Step("teacher", teacher, dots), Step("distillation", own, one)]
    chain = loss_chain(steps, seed=0)
    assert [link.quality for link in chain.links] == pytest.approx([theirs.value, mine.value])
    assert chain.total.value == pytest.approx(theirs.value - mine.value)


def retrieval_set(queries=40, documents=100):
    """Texts 0 to 39 ask, 40 to 139 answer; each query's answers are two documents."""
    relevance = tuple({n: 2.0, (n * 7 + 50) % documents: 1.0} for n in range(queries))
    return Retrieval(
        tuple(range(queries)),
        tuple(range(queries, queries + documents)),
        relevance,
        (None,) * queries,
    )


def ndcg(vectors, one):
    units = vectors.astype(float) / np.linalg.norm(vectors.astype(float), axis=1, keepdims=True)
    ranked = units[list(one.queries)] @ units[list(one.documents)].T
    grades = np.zeros_like(ranked)
    for query, known in enumerate(one.relevance):
        for document, grade in known.items():
            grades[query, document] = grade
    return np.array([ndcg_score(grades[[q]], ranked[[q]], k=10) for q in range(len(one.queries))])


def test_without_scores_losses_are_in_the_ndcg_of_all_queries():
    one = retrieval_set()
    vectors = TEACHER[:140].copy()
    vectors[:40] = vectors[40:80] + 0.6 * NOISE[:40]  # near their documents
    worse = vectors + 0.5 * NOISE[:140][::-1]
    data = dataset(scored=False, retrieval=one, size=140)
    chain = chain_of([("teacher", vectors), ("distillation", worse)], data)
    before, after = ndcg(vectors, one), ndcg(worse, one)
    assert (chain.metric, chain.samples) == ("ndcg_at_10", 40)
    assert chain.links[0].quality == pytest.approx(before.mean())
    assert chain.total.value == pytest.approx(before.mean() - after.mean())

    texts = tuple("x" * (n + 1) for n in range(140))
    units = FAMILY.row_texts(data, SimpleNamespace(texts=texts))
    assert units == texts[:40]
    teacher, student = said(vectors), said(worse, "student")
    cuts = slicings(Rows(units), teacher, None)
    found = slice_losses(student, teacher, cuts, seed=0, dataset=data)
    assert {one.name: one.samples for one in found} == {
        "up to 10": 10, "10 to 20": 10, "20 to 30": 10, "above 30": 10,
    }  # fmt: skip
    (short,) = (one for one in found if one.name == "up to 10")
    assert short.teacher == pytest.approx(before[:10].mean())
    assert short.loss.value == pytest.approx((before - after)[:10].mean())
    assert short.loss.low is None  # too few for an interval

    details = FAMILY.loss_details(student, teacher, data, units)
    worst = int(np.argmax(before - after))
    assert details.examples[0].row == worst
    assert details.examples[0].loss == pytest.approx((before - after)[worst])
    assert details.examples_in == "loss in nDCG@10"


def test_pairs_are_cut_by_the_length_of_both_texts():
    texts = tuple("y" * (5 if n < PAIRS else 50) for n in range(2 * PAIRS))
    data, student = dataset(), said(TEACHER + 0.8 * NOISE, "student")
    units = FAMILY.row_texts(data, SimpleNamespace(texts=texts))
    assert units[0] == "yyyyy | yyyyy"
    assert len(units) == PAIRS
    found = slice_losses(
        student, said(TEACHER), slicings(Rows(units), said(TEACHER), None), seed=0, dataset=data
    )
    short = next(one for one in found if one.name == "up to 13")
    first = np.arange(PAIRS) < PAIRS // 2
    assert short.samples == PAIRS // 2
    assert short.teacher == pytest.approx(rho(TEACHER, first))
    assert short.variant == pytest.approx(rho(TEACHER + 0.8 * NOISE, first))
    assert short.loss.low < short.loss.value < short.loss.high


def test_the_worst_pair_is_the_one_that_moved_farthest_from_its_rank():
    moved = TEACHER.copy()
    top = int(np.argmax(SCORES))
    moved[2 * top + 1] = -moved[2 * top]  # as unlike as two texts can be
    details = FAMILY.loss_details(said(moved, "student"), said(TEACHER), dataset(), ["t"] * PAIRS)
    assert details.examples[0].row == top
    assert details.examples[0].variant_says == "\u22121.0000"
    assert details.examples[0].label == number(SCORES[top])


def test_a_part_of_the_texts_keeps_its_pairs_and_a_retrieval_set_whole_alone():
    one = retrieval_set(queries=4, documents=6)
    data = dataset(retrieval=one)
    part = take_rows(data, np.array([0, 1, 3, 8, 9]))
    assert (part.scored.first, part.scored.second) == ((0, 3), (1, 4))
    assert part.scored.scores == (SCORES[0], SCORES[4])
    assert part.retrieval is None
    whole = take_rows(data, np.arange(10)[::-1])
    assert whole.retrieval.queries == (9, 8, 7, 6)
    assert whole.retrieval.documents == (5, 4, 3, 2, 1, 0)


def test_a_chain_draws_whole_pairs_and_refuses_part_of_the_documents():
    rows = FAMILY.chain_rows(dataset(), 21, seed=1)
    assert len(rows) == 20
    assert set(rows.tolist()) == {row ^ 1 for row in rows.tolist()}  # both texts of each
    assert FAMILY.chain_rows(dataset(), 2 * PAIRS, seed=1) is None
    only = dataset(scored=False, retrieval=retrieval_set(), size=140)
    with pytest.raises(DataError, match="140 texts, and chain_samples is 100"):
        FAMILY.chain_rows(only, 100, seed=1)
    with pytest.raises(DataError, match="neither pairs with a score nor a retrieval set"):
        FAMILY.chain_rows(dataset(scored=False), 1000, seed=1)


def variant_of(name, dimensions):
    return SimpleNamespace(name=name, outputs=FAMILY.outputs(dimensions))


def test_why_there_is_no_cosine_is_said():
    teacher = variant_of("large-fp32", 768)
    assert FAMILY.not_compared(variant_of("small-fp32", 384), teacher) == (
        "small-fp32 has no cosine with the teacher: its vectors have 384 dimensions, the "
        "teacher's 768"
    )
    assert FAMILY.not_compared(variant_of("large-int8", 768), teacher) == ""
