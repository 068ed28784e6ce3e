"""Token classifiers and sentence encoders, exported, served, scored and judged by `harness run`.

Right values come from the bare library: transformers on one unpadded row at a time, seqeval, scipy
and scikit-learn.
"""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from sklearn.metrics import ndcg_score

from harness.cli.main import run_command
from harness.errors import (
    EXIT_ENVIRONMENT,
    EXIT_OBJECTIVE_NOT_MET,
    EXIT_OK,
    EXIT_UNDECIDED,
)
from harness.runs.folder import read_run
from harness.serving.embedded.server import EmbeddedTriton
from harness.serving.endpoint import TritonClient
from tests.held_up import unhurried
from tests.local_study import scored_pairs, tagged_rows, write_words_study
from tests.tiny_models import LINES

pytestmark = [
    pytest.mark.triton,
    pytest.mark.usefixtures("server_environment"),
    pytest.mark.filterwarnings("ignore"),
]

MEASURED = {EXIT_OK, EXIT_OBJECTIVE_NOT_MET, EXIT_UNDECIDED, EXIT_ENVIRONMENT}
"""By the trials, which a busy machine spoils; what was scored must be right even so."""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_words_study(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def run(study, tmp_path_factory):
    """The folder of a whole run."""
    folder = tmp_path_factory.mktemp("run") / "run"
    repository = ["--repository", str(study.parent / "repository")]
    with unhurried():
        assert run_command(["run", str(study), "--out", str(folder), *repository]) in MEASURED
    return folder


@pytest.fixture(scope="module")
def client(study, run, server_environment, tmp_path_factory):
    """The ensembles in a server that was started on the repository alone."""
    log = tmp_path_factory.mktemp("log") / "triton.log"
    with (
        EmbeddedTriton(server_environment, study.parent / "repository", log_file=log) as server,
        TritonClient(server.endpoint) as connected,
    ):
        for model in ("tagger", "encoder", "small-encoder"):
            connected.load(f"{model}-fp32-ensemble")
        yield connected


def scores_of(run, variant):
    return {one.metric: one for one in read_run(run).scores if one.variant == variant}


def bare_tags(folder):
    """Each word's tag by its first piece, as transformers' run_ner reads it; "" where cut off."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
    found = []
    for row in tagged_rows():
        encoded = tokenizer(
            row["tokens"],
            is_split_into_words=True,
            truncation=True,
            max_length=24,
            return_tensors="pt",
        )
        with torch.inference_mode():
            best = model(**encoded).logits[0].argmax(-1).tolist()
        places = encoded.word_ids(0)
        words = range(len(row["tokens"]))
        found.append(
            [model.config.id2label[best[places.index(w)]] if w in places else "" for w in words]
        )
    return found


def bare_vectors(folder, texts, *, pooling):
    """As the model card of all-MiniLM-L6-v2 makes them, and numpy for the Dense layer."""
    import torch
    import transformers
    from safetensors.numpy import load_file

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    vectors = []
    for text in texts:
        encoded = tokenizer(text, truncation=True, max_length=24, return_tensors="pt")
        with torch.inference_mode():
            tokens = model(**encoded).last_hidden_state[0].numpy()
        vector = tokens.mean(axis=0) if pooling == "mean" else tokens[0]
        layer = folder / "2_Dense" / "model.safetensors"
        if layer.is_file():
            weights = load_file(str(layer))
            vector = np.tanh(weights["linear.weight"] @ vector + weights["linear.bias"])
        vectors.append(vector / np.linalg.norm(vector))
    return np.stack(vectors)


@pytest.mark.parametrize("model", ["tagger", "small-tagger"])
def test_entities_are_scored_as_seqeval_scores_the_bare_checkpoint(study, run, model):
    tags = bare_tags(study.parent / model)
    true = [row["ner_tags"] for row in tagged_rows()]
    outside = [[tag or "O" for tag in sentence] for sentence in tags]
    scores = scores_of(run, f"{model}-fp32")
    assert {name: pytest.approx(one.value, abs=1e-9) for name, one in scores.items()} == {
        "entity_f1": f1_score(true, outside),
        "entity_precision": precision_score(true, outside),
        "entity_recall": recall_score(true, outside),
        "token_accuracy": accuracy_score(true, tags),
    }
    outcomes = pd.read_parquet(run / "samples" / f"{model}-fp32.parquet")
    assert [list(one) for one in outcomes.tags] == tags
    for one in scores.values():
        assert one.low <= one.value <= one.high
        assert one.samples == len(true)


@pytest.mark.parametrize(("model", "pooling"), [("encoder", "mean"), ("small-encoder", "cls")])
def test_vectors_are_the_bare_checkpoints_and_scored_as_others_score(study, run, model, pooling):
    pairs = scored_pairs()
    first, second = (
        bare_vectors(study.parent / model, [pair[key] for pair in pairs], pooling=pooling)
        for key in ("text", "text_pair")
    )
    scores = scores_of(run, f"{model}-fp32")
    near = (first * second).sum(axis=1)
    rho = stats.spearmanr(near, [pair["score"] for pair in pairs]).statistic
    assert scores["sts_spearman"].value == pytest.approx(rho, abs=1e-6)
    assert scores["sts_spearman"].samples == len(pairs)

    ranked = second[:24] @ first.T
    grades = np.zeros_like(ranked)
    for line in (study.parent / "test.tsv").read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        grades[int(query[1:]), int(document[1:])] = int(grade)
    wanted = np.mean([ndcg_score(grades[[q]], ranked[[q]], k=10) for q in range(24)])
    assert scores["ndcg_at_10"].value == pytest.approx(wanted, abs=1e-6)
    best = np.argsort(-ranked, axis=1)[:, :10]
    hits = [(grades[q, best[q]] > 0).sum() / (grades[q] > 0).sum() for q in range(24)]
    assert scores["recall_at_10"].value == pytest.approx(np.mean(hits))
    assert scores["ndcg_at_10"].samples == 24

    served = pd.read_parquet(run / "samples" / f"{model}-fp32.parquet")
    texts = list(dict.fromkeys(pair["text"] for pair in pairs))
    stored = np.stack(served.embedding[: len(texts)])
    assert stored[0] == pytest.approx(first[0], abs=1e-5)


def test_each_family_is_judged_by_its_own_metric(run):
    verdict = json.loads((run / "verdict.json").read_text())
    slos = [family["slo"] for family in verdict["families"]]
    assert "entity_f1" in json.dumps(slos[0])
    assert "ndcg_at_10" in json.dumps(slos[1])
    report = (run / "report.html").read_text(encoding="utf-8")
    for words in ("entity F1", "nDCG@10", "STS Spearman", "Same entities (F1)"):
        assert words in report


def test_where_entities_were_lost_is_told_by_step_and_by_slice(run):
    stored = read_run(run)
    (entry,) = (one for one in stored.losses if one.variant == "small-tagger-fp32")
    assert entry.chain.metric == "entity_f1"
    assert [link.step for link in entry.chain.links] == [
        "teacher", "distillation", "export", "serving", "batching",
    ]  # fmt: skip
    assert {one.slicing for one in entry.slices} == {"entity type", "words"}
    assert {one.name for one in entry.slices if one.slicing == "entity type"} == {"LOC", "PER"}
    scores = {
        name: scores_of(run, f"{name}-fp32")["entity_f1"].value
        for name in ("tagger", "small-tagger")
    }
    lost = scores["tagger"] - scores["small-tagger"]
    assert entry.chain.total.value == pytest.approx(lost, abs=1e-9)


def test_where_vectors_were_lost_starts_where_sentence_transformers_stands(study, run):
    from sentence_transformers import SentenceTransformer

    pairs = scored_pairs()
    values = {}
    for model in ("encoder", "small-encoder"):
        library = SentenceTransformer(str(study.parent / model), device="cpu")
        library.max_seq_length = 24
        first, second = (
            library.encode([pair[key] for pair in pairs], batch_size=1)
            for key in ("text", "text_pair")
        )
        near = library.similarity_pairwise(first, second).numpy()
        values[model] = stats.spearmanr(near, [pair["score"] for pair in pairs]).statistic
    stored = read_run(run)
    (entry,) = (one for one in stored.losses if one.variant == "small-encoder-fp32")
    assert entry.chain is not None, entry.problem
    links = {link.step: link for link in entry.chain.links}
    assert [*links] == ["teacher", "distillation", "export", "serving", "batching"]
    assert entry.chain.metric == "sts_spearman"
    assert links["teacher"].quality == pytest.approx(values["encoder"], abs=1e-6)
    assert links["distillation"].quality == pytest.approx(values["small-encoder"], abs=1e-6)
    served = scores_of(run, "small-encoder-fp32")["sts_spearman"].value
    assert links["batching"].quality == pytest.approx(served, abs=1e-9)
    assert links["distillation"].cosine is None  # 16 dimensions beside 32
    for step in ("export", "serving", "batching"):
        assert links[step].cosine == pytest.approx(1.0, abs=1e-5)
        assert links[step].changed == 0
    assert {one.slicing for one in entry.slices} == {"characters"}
    told = "small-encoder-fp32 has no cosine with the teacher: its vectors have 16 dimensions"
    assert told in (run / "report.html").read_text(encoding="utf-8")
    assert told in (run / "report.md").read_text(encoding="utf-8")


def test_a_text_is_answered_with_the_entities_that_transformers_pipeline_finds(study, client):
    import transformers

    library = transformers.pipeline(
        "token-classification", str(study.parent / "tagger"), aggregation_strategy="first"
    )
    texts = [" ".join(line.split()[:5]) for line in LINES] + ["Don't stop: 3.14 costs $1,000!"]
    answer = client.infer(
        "tagger-fp32-ensemble", {"TEXT": np.array([[t.encode()] for t in texts], object)}
    )
    for text, said in zip(texts, answer["SPANS"][:, 0], strict=True):
        spans = [(s["type"], s["start"], s["end"]) for s in json.loads(said)]
        wanted = library(text)
        assert spans == [(w["entity_group"], w["start"], w["end"]) for w in wanted]
        scores = [s["score"] for s in json.loads(said)]
        assert scores == pytest.approx([float(w["score"]) for w in wanted], abs=1e-4)


@pytest.mark.parametrize(("model", "pooling"), [("encoder", "mean"), ("small-encoder", "cls")])
def test_a_text_is_answered_with_its_vector(study, client, model, pooling):
    texts = [" ".join(line.split()[:5]) for line in LINES]
    asked = {"TEXT": np.array([[text.encode()] for text in texts], object)}
    answer = client.infer(f"{model}-fp32-ensemble", asked)["sentence_embedding"]
    wanted = bare_vectors(study.parent / model, texts, pooling=pooling)
    size = np.linalg.norm(answer, axis=1, keepdims=True)
    assert answer / size == pytest.approx(wanted, abs=1e-5)


def test_ensembles_are_scored_beside_their_models(run):
    for metric, one in scores_of(run, "encoder-fp32-ensemble").items():
        assert one.value == pytest.approx(scores_of(run, "encoder-fp32")[metric].value, abs=1e-9)
    assert "entity_f1" in scores_of(run, "tagger-fp32-ensemble")
