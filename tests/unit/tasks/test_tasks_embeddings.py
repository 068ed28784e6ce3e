"""Sentence encoders: what their files say, what their graph makes of it, and how vectors score."""

import itertools
import json

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import ndcg_score

from harness.errors import CheckpointError, DataError, StudyError
from harness.study import SentenceEmbedding
from harness.study.file import parse_study
from harness.tasks.loading import encode, load_samples, tokenizer_note
from harness.tasks.sentence_embedding.modules import read_modules
from harness.tasks.sentence_embedding.outcomes import cosines, embedding_statistics, rank
from tests.tiny_models import LINES, make_sentence_encoder, write_json
from tests.tiny_tokenizers import amend

PAIRS = [
    {"text": a, "text_pair": b, "score": n} for n, (a, b) in enumerate(itertools.pairwise(LINES))
]


def beir(folder, *, relevance="query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td3\t1\nq2\td2\t0\n"):
    """Three documents and two queries, of which one is answered."""
    documents = [{"_id": f"d{n}", "title": "" if n else "On", "text": LINES[n]} for n in range(4)]
    queries = [{"_id": f"q{n}", "text": LINES[n]} for n in (1, 2)]
    folder.mkdir(exist_ok=True)
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (folder / "test.tsv").write_text(relevance)
    return {
        "corpus": folder / "corpus.jsonl",
        "queries": folder / "queries.jsonl",
        "relevance": folder / "test.tsv",
    }


def task_of(tmp_path, rows=PAIRS, **changes):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    columns = {"text_pair": "text_pair", "score": "score"}
    return SentenceEmbedding.model_validate(
        {
            "kind": "sentence-embedding",
            "data": {"source": "jsonl", "path": str(path)},
            "max_length": 32,
            **columns,
            **changes,
        }
    )


def test_every_text_is_asked_once_in_each_role(tmp_path):
    samples = load_samples(
        task_of(tmp_path, retrieval=beir(tmp_path / "beir")), seed=0, label_names=None
    )
    assert samples.texts[:6] == LINES
    assert samples.scored.first == (0, 1, 2, 3, 4)
    assert samples.scored.second == (1, 2, 3, 4, 5)
    assert samples.scored.scores == (0, 1, 2, 3, 4)
    retrieval = samples.retrieval
    assert [samples.texts[row] for row in retrieval.queries] == [LINES[1]]
    assert [samples.texts[row] for row in retrieval.documents] == [f"On {LINES[0]}", *LINES[1:4]]
    assert [samples.roles[row] for row in (*retrieval.queries, *retrieval.documents)] == [
        "query",
        *["document"] * 4,
    ]
    assert retrieval.relevance == ({1: 2.0, 3: 1.0},)


@pytest.mark.parametrize(
    ("relevance", "fault"),
    [
        ("q1\td9\t1\n", "line 1: no document has the _id d9"),
        ("q1\td1\n", "line 1: .* is not a query, document and score"),
        ("q1\td1\u2028\t1\n", "line 1: no document has the _id d1\u2028"),
        ("q1\td1\t0\n", "no query has a document of relevance above 0"),
    ],
)
def test_relevance_that_does_not_fit_is_named(tmp_path, relevance, fault):
    task = task_of(tmp_path, retrieval=beir(tmp_path / "beir", relevance=relevance))
    with pytest.raises(DataError, match=fault):
        load_samples(task, seed=0, label_names=None)


def test_a_score_that_is_no_number_is_named(tmp_path):
    with pytest.raises(DataError, match="line 2: 'score' is not a number: 'high'"):
        load_samples(
            task_of(tmp_path, [PAIRS[0], {**PAIRS[1], "score": "high"}]), seed=0, label_names=None
        )


def test_two_pairs_have_no_rank_correlation(tmp_path):
    with pytest.raises(DataError, match="a rank correlation needs three"):
        load_samples(task_of(tmp_path, PAIRS[:2]), seed=0, label_names=None)


def test_texts_are_cut_at_the_checkpoints_own_length_and_stand_behind_its_prompts(tmp_path):
    folder = make_sentence_encoder(tmp_path / "encoder", max_length=7)
    prompts = {"prompts": {"query": "ask: ", "document": "say: "}, "default_prompt_name": None}
    write_json(folder / "config_sentence_transformers.json", prompts)
    task = task_of(tmp_path, retrieval=beir(tmp_path / "beir"))
    samples = load_samples(task, seed=0, label_names=None)
    dataset = encode(task, samples, folder)
    (group,) = dataset.groups
    lengths = group.inputs["attention_mask"].sum(axis=1)
    assert lengths.max() == 7
    assert group.length == 32

    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    query = dataset.retrieval.queries[0]
    place = group.rows.tolist().index(query)
    wanted = tokenizer(f"ask: {LINES[1]}", truncation=True, max_length=7)["input_ids"]
    assert group.inputs["input_ids"][place][:7].tolist() == wanted


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "lasttoken"])
@pytest.mark.parametrize(("dense", "normalised"), [(None, True), (16, True), (None, False)])
def test_a_padded_batch_is_pooled_as_each_text_alone(tmp_path, pooling, dense, normalised):
    """Held against plain transformers and numpy, on one text at a time without padding."""
    import torch
    import transformers
    from safetensors.numpy import load_file

    from harness.tasks.sentence_embedding.graph import EmbeddingGraph

    folder = make_sentence_encoder(
        tmp_path / "encoder", pooling=pooling, dense=dense, normalised=normalised
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    graph = EmbeddingGraph(model, read_modules(folder)).eval()
    batch = tokenizer(list(LINES), padding=True, return_tensors="pt")
    with torch.inference_mode():
        (vectors,) = graph(batch["input_ids"], batch["attention_mask"])
        for text, vector in zip(LINES, vectors.numpy(), strict=True):
            tokens = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()
            wanted = {
                "mean": tokens.mean(axis=0),
                "cls": tokens[0],
                "max": tokens.max(axis=0),
                "lasttoken": tokens[-1],
            }[pooling]
            if dense:
                layer = load_file(str(folder / "2_Dense" / "model.safetensors"))
                wanted = np.tanh(layer["linear.weight"] @ wanted + layer["linear.bias"])
            if normalised:
                wanted = wanted / np.linalg.norm(wanted)
            assert vector == pytest.approx(wanted, abs=2e-6)


def test_a_pooling_or_module_that_is_not_known_is_refused_in_one_line(tmp_path):
    folder = make_sentence_encoder(tmp_path / "weighted", pooling="weightedmean")
    with pytest.raises(CheckpointError, match="it pools by weightedmean"):
        read_modules(folder)
    folder = make_sentence_encoder(tmp_path / "router")
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.Router"
    write_json(folder / "modules.json", modules)
    with pytest.raises(CheckpointError, match="its module 2 is Router"):
        read_modules(folder)


def test_without_modules_the_study_says_how_to_pool(tmp_path):
    folder = make_sentence_encoder(tmp_path / "bare", pooling=None)
    with pytest.raises(CheckpointError, match="nothing says how token vectors") as caught:
        read_modules(folder)
    assert "'pooling'" in caught.value.next_step
    found = read_modules(folder, pooling="cls", normalised=True)
    assert (found.pooling, found.normalised) == ("cls", True)


def test_retrieval_is_scored_as_scikit_learn_and_by_counting():
    draw = np.random.default_rng(5)
    queries = draw.normal(size=(40, 8)).astype(np.float32)
    documents = draw.normal(size=(150, 8)).astype(np.float32)
    grades = draw.integers(0, 3, size=(40, 150)) * (draw.random((40, 150)) < 0.1)
    grades[:, 0] = 1  # every query is answered by some document
    relevance = [{int(d): float(row[d]) for d in np.flatnonzero(row)} for row in grades]
    found = rank(queries, documents, relevance, left_out=[None] * 40)

    unit = documents / np.linalg.norm(documents, axis=1, keepdims=True)
    scores = queries @ unit.T
    wanted = [ndcg_score(grades[[q]], scores[[q]], k=10) for q in range(40)]
    assert found.ndcg == pytest.approx(wanted, abs=1e-9)
    for k in (10, 100):
        first = np.argsort(-scores, axis=1)[:, :k]
        hits = [(grades[q, first[q]] > 0).sum() / (grades[q] > 0).sum() for q in range(40)]
        assert found.recall[k] == pytest.approx(hits)


def test_unanswered_queries_find_nothing_and_a_querys_own_document_does_not_count():
    vectors = np.eye(3, dtype=np.float32)
    lost = vectors.copy()
    lost[0] = np.nan
    relevance = [{1: 1.0}, {1: 1.0}, {2: 1.0}]
    found = rank(lost, vectors, relevance, left_out=[None, None, 2])
    assert found.ndcg.tolist() == [0.0, 1.0, 0.0]
    assert found.recall[10].tolist() == [0.0, 1.0, 0.0]


def test_dot_products_rank_long_vectors_first_where_the_checkpoint_says_so():
    queries = np.array([[1.0, 0.0]], dtype=np.float32)
    documents = np.array([[1.0, 0.0], [3.0, 3.0]], dtype=np.float32)
    relevance = [{1: 1.0}]
    alone = {"left_out": [None]}
    assert rank(queries, documents, relevance, **alone, dot=True).ndcg[0] == 1.0
    assert rank(queries, documents, relevance, **alone).ndcg[0] == pytest.approx(1 / np.log2(3))


def test_pairs_are_scored_as_scipy_ranks_them(tmp_path):
    folder = make_sentence_encoder(tmp_path / "encoder")
    task = task_of(tmp_path, retrieval=beir(tmp_path / "beir"))
    dataset = encode(task, load_samples(task, seed=0, label_names=None), folder)
    vectors = np.random.default_rng(1).normal(size=(dataset.size, 8)).astype(np.float32)
    found = {
        one.metric: one
        for one in embedding_statistics(vectors, dataset, np.ones(dataset.size, dtype=bool))
    }
    near = cosines(vectors[:5], vectors[1:6])
    assert found["sts_spearman"].value == pytest.approx(
        stats.spearmanr(near, range(5)).statistic, abs=1e-12
    )
    assert set(found) == {"sts_spearman", "ndcg_at_10", "recall_at_10", "recall_at_100"}
    assert found["recall_at_100"].value == 1.0


def test_an_objective_that_the_data_cannot_answer_is_refused(tmp_path):
    task = task_of(tmp_path).model_dump(mode="json")
    document = {
        "name": "search",
        "objective": "p95 < 50 ms, ndcg_at_10 >= 0.5",
        "families": [
            {
                "name": "search",
                "task": task,
                "models": [{"name": "one", "role": "teacher", "checkpoint": "a/b"}],
            }
        ],
    }
    with pytest.raises(StudyError, match="ndcg_at_10, which is not scored without the task's 'ret"):
        parse_study(document, source="study")
    document["objective"] = "p95 < 50 ms, sts_spearman >= 0.5"
    assert parse_study(document, source="study").name == "search"


def settings_of(folder, prompts=None, default=None):
    content = {"prompts": prompts or {}, "default_prompt_name": default}
    write_json(folder / "config_sentence_transformers.json", content)
    return read_modules(folder)


@pytest.mark.parametrize(
    ("prompts", "default", "expected"),
    [
        ({"query": "ask: ", "document": "say: "}, None, ("ask: ", "say: ", "")),
        ({"s2s": "alike: "}, "s2s", ("", "", "alike: ")),
        ({"query": "", "document": "", "s2s": "alike: "}, "s2s", ("", "", "alike: ")),
        ({"document": "", "passage": "say: "}, None, ("", "", "")),
        ({"query": "ask: ", "passage": "say: "}, "query", ("ask: ", "say: ", "ask: ")),
    ],
)
def test_queries_and_documents_never_take_the_default_prompt(tmp_path, prompts, default, expected):
    """As sentence-transformers' encode_query and encode_document."""
    modules = settings_of(make_sentence_encoder(tmp_path / "encoder"), prompts, default)
    assert (modules.query_prompt, modules.document_prompt, modules.prompt) == expected


def test_a_default_prompt_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="default_prompt_name is 's2s', and its prompts are"):
        settings_of(make_sentence_encoder(tmp_path / "encoder"), {"query": "ask: "}, "s2s")


@pytest.mark.parametrize(
    ("prompts", "retrieval", "noted"),
    [
        ({"passage": "say: "}, True, True),
        ({"passage": "say: "}, False, False),
        ({"passage": "say: ", "document": ""}, True, False),
        ({"document": "say: "}, True, False),
        ({}, True, False),
    ],
)
def test_a_prompt_that_sentence_transformers_leaves_out_is_told(
    tmp_path, prompts, retrieval, noted
):
    folder = make_sentence_encoder(tmp_path / "encoder")
    settings_of(folder, prompts)
    one = {"retrieval": beir(tmp_path / "beir")} if retrieval else {}
    task = task_of(tmp_path, **one)
    samples = load_samples(task, seed=0, label_names=None)
    assert ("prompt 'passage'" in tokenizer_note(task, samples, folder)) is noted


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sentence_bert_config.json", 7),
        ("sentence_roberta_config.json", 7),
        ("sentence_xlm-roberta_config.json", 7),
        ("another.json", 40),
    ],
)
def test_the_longest_text_is_what_sentence_transformers_would_cut_at(tmp_path, name, expected):
    """Else the tokenizer's length, or the model's positions where they are fewer."""
    folder = make_sentence_encoder(tmp_path / "encoder", max_length=7)
    (folder / "sentence_bert_config.json").rename(folder / name)
    amend(folder, model_max_length=40)
    assert read_modules(folder).max_length == expected
    amend(folder, model_max_length=10**30)
    assert read_modules(folder).max_length == (64 if expected == 40 else expected)


@pytest.mark.parametrize(
    ("file", "change", "fault"),
    [
        ("sentence_bert_config.json", {"config_args": {"num_hidden_layers": 1}}, "its transformer"),
        ("2_Dense/config.json", {"activation_function": "mine.Tanh"}, "its Dense layer has Tanh"),
    ],
)
def test_settings_that_are_not_followed_are_refused(tmp_path, file, change, fault):
    folder = make_sentence_encoder(tmp_path / "encoder", dense=16)
    content = json.loads((folder / file).read_text())
    write_json(folder / file, {**content, "model_args": {"attn_implementation": "sdpa"}})
    read_modules(folder)
    write_json(folder / file, {**content, **change})
    with pytest.raises(CheckpointError, match=fault):
        read_modules(folder)


PLAIN = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}
"""What sentence-transformers 6 writes into sentence_bert_config.json of an ordinary encoder."""


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, ""),
        ({"processing_kwargs": {"text": {}}}, ""),
        ({"processing_kwargs": {"text": {"max_length": 6}}}, "processing_kwargs"),
        ({"query_length": 6}, "query_length"),
        ({"document_length": 6}, "document_length"),
        ({"transformer_task": "fill-mask"}, "transformer_task fill-mask"),
        (
            {"modality_config": {"text": {**PLAIN["modality_config"]["text"], "method": "other"}}},
            "modality_config .*other",
        ),
        ({"modality_config": {"message": {}}}, "modality_config null of texts"),
    ],
)
def test_other_ways_to_ask_the_transformer_are_refused(tmp_path, change, fault):
    """Each gives other vectors than a plain call, by sentence-transformers itself."""
    folder = make_sentence_encoder(tmp_path / "encoder")
    write_json(folder / "sentence_bert_config.json", {**PLAIN, **change})
    if not fault:
        assert read_modules(folder).pooling == "mean"
        return
    with pytest.raises(CheckpointError, match=f"it asks its transformer with {fault}"):
        read_modules(folder)


def test_a_module_that_is_code_of_the_checkpoint_is_refused(tmp_path):
    """It may have the name of one that is known, as jina's `custom_st.Transformer` has."""
    folder = make_sentence_encoder(tmp_path / "encoder")
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "custom_st.Transformer"
    write_json(folder / "modules.json", modules)
    with pytest.raises(CheckpointError, match=r"module 0 is code of its own, custom_st\.Transf"):
        read_modules(folder)


def test_texts_that_are_to_be_lowered_need_a_tokenizer_that_does(tmp_path):
    """That of the encoder lowers texts; without its normaliser it knows no capital letter."""
    folder = make_sentence_encoder(tmp_path / "encoder")
    write_json(folder / "sentence_bert_config.json", {"do_lower_case": True})
    task = task_of(tmp_path)
    samples = load_samples(task, seed=0, label_names=None)
    encode(task, samples, folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    write_json(folder / "tokenizer.json", {**content, "normalizer": None})
    with pytest.raises(CheckpointError, match="tells upper from lower case"):
        encode(task, samples, folder)


@pytest.mark.filterwarnings("ignore")
def test_texts_queries_and_documents_have_the_vectors_of_sentence_transformers(tmp_path):
    """Each text asked alone of SentenceTransformer itself, by `encode` and its two sisters."""
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer

    from harness.tasks.sentence_embedding.graph import EmbeddingGraph

    folder = make_sentence_encoder(tmp_path / "encoder", dense=16, normalised=False, max_length=9)
    (folder / "sentence_bert_config.json").rename(folder / "sentence_distilbert_config.json")
    settings_of(folder, {"query": "ask: ", "document": "", "s2s": "alike: "}, "s2s")
    task = task_of(tmp_path, retrieval=beir(tmp_path / "beir"))
    samples = load_samples(task, seed=0, label_names=None)
    (group,) = encode(task, samples, folder).groups
    model = transformers.AutoModel.from_pretrained(folder).eval()
    graph = EmbeddingGraph(model, read_modules(folder)).eval()
    with torch.inference_mode():
        (vectors,) = graph(*(torch.from_numpy(group.inputs[one]) for one in graph_inputs(group)))
    library = SentenceTransformer(str(folder), device="cpu")
    ask = {
        "text": library.encode,
        "query": library.encode_query,
        "document": library.encode_document,
    }
    assert set(samples.roles) == set(ask)
    for place, row in enumerate(group.rows.tolist()):
        wanted = ask[samples.roles[row]](samples.texts[row])
        assert vectors[place].numpy() == pytest.approx(wanted, abs=2e-6)


def graph_inputs(group):
    return [one for one in ("input_ids", "attention_mask", "token_type_ids") if one in group.inputs]
