"""lm-eval's tasks of choice, answered by sequence classifiers: against the bare library."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from harness.errors import DataError, ServerError
from harness.quality.lm_eval.classifier import (
    GLUE,
    choice_outputs,
    class_metrics,
    document_form,
    label_perplexity,
)
from harness.quality.lm_eval.evaluation import evaluate_task, read_samples, write_results
from harness.quality.lm_eval.scores import task_scores
from harness.quality.lm_eval.served_classifier import ChosenTask, ServedClassifier
from harness.quality.lm_eval.tasks import LoadedTask, TaskRequest, load_tasks
from harness.study import CsvData, SequenceClassification
from harness.tasks.loading import encode
from harness.types import (
    ModelFormat,
    ModelVariant,
    Precision,
    Role,
    TensorSpec,
)
from tests.lm_tasks import NLI, mnli, sst2, topics_task, write_class_tasks, write_task
from tests.tiny_models import make_classifier

SECTION = SequenceClassification(
    kind="sequence-classification", data=CsvData(source="csv", path=__file__), max_length=32
)


class BareModel:
    """The checkpoint in the place of the endpoint; counts the rows that it is asked."""

    def __init__(self, folder: Path, *, failing: int = 0) -> None:
        self.model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
        self.rows = 0
        self.failing = failing

    def infer(self, _: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.rows += len(inputs["input_ids"])
        if self.failing > 0:
            self.failing -= 1
            raise ServerError("the queue is full")
        with torch.no_grad():
            tensors = {name: torch.from_numpy(np.array(one)) for name, one in inputs.items()}
            return {"logits": self.model(**tensors).logits.numpy()}


def variant(folder: Path, name: str = "own", *, role: Role = Role.TEACHER, classes: int = 3):
    names = ("input_ids", "attention_mask", "token_type_ids")
    return ModelVariant(
        name=name,
        family="texts",
        role=role,
        task="sequence-classification",
        format=ModelFormat.ONNX,
        precision=Precision.FP32,
        source=str(folder),
        sha256=name,
        path=folder,
        inputs=tuple(TensorSpec(one, "INT64", (-1,)) for one in names),
        outputs=(TensorSpec("logits", "FP32", (classes,)),),
        parameters=1,
        size_bytes=1,
    )


def loaded(folder: Path, *names: str) -> dict[str, LoadedTask]:
    return {one.name: one for one in load_tasks(TaskRequest(names, (folder,)))}


def names_of(folder: Path) -> tuple[str, ...]:
    config = transformers.AutoConfig.from_pretrained(folder)
    return tuple(config.id2label[place] for place in range(config.num_labels))


def ask(
    task: LoadedTask,
    folder: Path,
    *,
    predictor: Any = None,
    called: tuple[str, ...] | None = None,
) -> tuple[dict[str, Any], ServedClassifier]:
    """lm-eval's results of one model."""
    names = called or names_of(folder)
    chosen = {}
    for name, one in task.tasks.items():
        form = document_form(one, SECTION)
        chosen[name] = ChosenTask(one, form, choice_outputs(form, "own", names))
    own = variant(folder, classes=len(names))
    model = ServedClassifier(
        own,
        predictor or BareModel(folder),
        chosen,
        label_names=names,
        encode=lambda samples: encode(SECTION, samples, folder),
        max_length=32,
        batch_size=8,
        progress=lambda done, total: None,
    )
    with class_metrics(task.tasks):
        return evaluate_task(model, task, own), model


def bare_log_probabilities(folder: Path, texts: list[tuple[str, ...]]) -> Any:
    """transformers' own answer to each text alone, unpadded: (documents, classes)."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        inputs = tokenizer(*text, truncation=True, max_length=32, return_tensors="pt")
        if "token_type_ids" not in inputs and len(text) == 2:
            inputs = tokenizer(
                *text,
                truncation=True,
                max_length=32,
                return_tensors="pt",
                return_token_type_ids=True,
            )
        with torch.no_grad():
            rows.append(torch.log_softmax(model(**inputs).logits[0].double(), dim=-1))
    return torch.stack(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_class_tasks(tmp_path_factory.mktemp("class-tasks"))


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose classes stand in another order than MNLI's, in capitals as hubs have them."""
    names = ("CONTRADICTION", "ENTAILMENT", "NEUTRAL")
    return make_classifier(tmp_path_factory.mktemp("shuffled") / "model", names, seed=3)


def test_accuracy_and_perplexity_are_those_of_the_bare_library(folder, shuffled):
    results, model = ask(loaded(folder, "mnli")["mnli"], shuffled)

    samples = results["samples"]["mnli"]
    texts = [(one["doc"]["premise"], one["doc"]["hypothesis"]) for one in samples]
    bare = bare_log_probabilities(shuffled, texts)
    places = {"entailment": 1, "neutral": 2, "contradiction": 0}  # by the names of the model
    gold = torch.tensor([places[NLI[one["doc"]["label"]]] for one in samples])
    accuracy = (bare.argmax(dim=1) == gold).double().mean().item()
    loss = torch.nn.functional.cross_entropy(bare, gold).item()

    assert results["results"]["mnli"]["acc,none"] == pytest.approx(accuracy, abs=1e-12)
    assert 0 < accuracy < 1
    found = results["results"]["mnli"]["label_perplexity,none"]
    assert found == pytest.approx(math.exp(loss), rel=1e-5)
    assert not [name for name in results["results"]["mnli"] if name.startswith("acc_norm")]
    assert model.answers.asked == len(samples) == 48
    assert model.counts.requests == 3 * 48
    for sample, row in zip(samples, bare, strict=True):
        for (value, _), label in zip(sample["filtered_resps"], NLI, strict=True):
            assert value == pytest.approx(row[places[label]].item(), abs=1e-4)


def test_sentences_of_two_classes_have_f1_by_lm_eval(folder, tmp_path, capsys):
    own = make_classifier(tmp_path / "model", ("POSITIVE", "NEGATIVE"), seed=5)

    results, _ = ask(loaded(folder, "sst2")["sst2"], own)

    samples = results["samples"]["sst2"]
    bare = bare_log_probabilities(own, [(one["doc"]["sentence"],) for one in samples])
    predicted = 1 - bare.argmax(dim=1).numpy()  # the label 1 is positive, which is output 0
    gold = np.array([one["doc"]["label"] for one in samples])
    assert results["results"]["sst2"]["acc,none"] == np.mean(predicted == gold)
    from sklearn.metrics import f1_score

    assert results["results"]["sst2"]["f1,none"] == pytest.approx(f1_score(gold, predicted))
    assert not capsys.readouterr().out, "lm-eval's own words would stand in the document of --json"


def test_a_task_of_ones_own_says_what_a_classifier_reads(folder, tmp_path):
    own = make_classifier(tmp_path / "model", ("other", "code", "prose"), seed=6)

    results, _ = ask(loaded(folder, "local_topics")["local_topics"], own)

    samples = results["samples"]["local_topics"]
    bare = bare_log_probabilities(own, [(one["doc"]["body"],) for one in samples])
    named = [("other", "code", "prose")[place] for place in bare.argmax(dim=1)]
    right = np.mean([one["doc"]["topic"] == name for one, name in zip(samples, named, strict=True)])
    assert results["results"]["local_topics"]["acc,none"] == right


def test_a_brier_score_is_of_all_classes_and_has_an_interval(folder, tmp_path):
    metrics = [{"metric": name} for name in ("brier_score", "mcc", "exact_match")]
    own = make_classifier(tmp_path / "model", ("POSITIVE", "NEGATIVE"), seed=5)
    path = write_task(tmp_path, sst2(folder, metric_list=metrics))
    (task,) = load_tasks(TaskRequest((str(path),)))

    results, _ = ask(task, own)
    rows = read_samples(write_results(tmp_path / "run", "sst2", results)["sst2"])
    scored = task_scores(
        task.tasks["sst2"],
        rows,
        variant=variant(own),
        teacher_samples=rows,
        outcomes_file="",
        seed=0,
    )

    bare = bare_log_probabilities(own, [(one["doc"]["sentence"],) for one in rows]).exp().numpy()
    gold = np.array([one["doc"]["label"] for one in rows])
    expected = float(np.mean(((bare[:, ::-1] - np.eye(2)[gold]) ** 2).sum(axis=1)))
    found = {one.metric: one for one in scored}["sst2/brier_score"]
    assert found.value == pytest.approx(expected, rel=1e-5)
    assert found.low < found.value < found.high


def test_rows_have_intervals_and_the_relation_to_the_teacher(folder, shuffled, tmp_path):
    task = loaded(folder, "mnli")["mnli"]
    student = make_classifier(tmp_path / "model", NLI, seed=8)
    rows = {}
    for name, own in (("teacher", shuffled), ("student", student)):
        results, _ = ask(task, own)
        rows[name] = read_samples(write_results(tmp_path / name, "mnli", results)["mnli"])

    scores = {
        one.metric: one
        for one in task_scores(
            task.tasks["mnli"],
            rows["student"],
            variant=variant(student, "student", role=Role.STUDENT),
            teacher_samples=rows["teacher"],
            outcomes_file="",
            seed=0,
        )
    }

    assert set(scores) == {"mnli/acc", "mnli/label_perplexity"}
    perplexity = {
        name: math.exp(-np.mean([one["label_perplexity"] for one in samples]))
        for name, samples in rows.items()
    }
    found = scores["mnli/label_perplexity"]
    assert found.value == pytest.approx(perplexity["student"])
    assert found.low < found.value < found.high
    assert found.relative_to_teacher == pytest.approx(perplexity["student"] / perplexity["teacher"])
    assert found.relative_low < found.relative_to_teacher < found.relative_high
    assert scores["mnli/acc"].p_value is not None


def test_an_unanswered_document_is_wrong_and_has_no_likelihood(folder, shuffled):
    task = loaded(folder, "mnli")["mnli"]
    sound, _ = ask(task, shuffled)

    results, model = ask(task, shuffled, predictor=BareModel(shuffled, failing=1))

    samples, before = results["samples"]["mnli"], sound["samples"]["mnli"]
    lost = [one for one in samples if "label_perplexity" not in one]
    assert len(lost) == 8
    assert model.counts.unanswered == 3 * 8
    assert all(one["acc"] == 0.0 for one in lost)
    kept = {one["doc_id"]: one["acc"] for one in before}
    assert all(one["acc"] == kept[one["doc_id"]] for one in samples if one not in lost)


def test_a_model_without_names_is_taken_in_the_tasks_order_and_told_so(folder, tmp_path):
    own = make_classifier(tmp_path / "model", None, seed=4)
    task = loaded(folder, "mnli")["mnli"]
    form = document_form(task.tasks["mnli"], SECTION)

    found = choice_outputs(form, "own", names_of(own))

    assert found.outputs == (0, 1, 2)
    assert "output 0 is entailment, output 1 is neutral" in found.note
    named = choice_outputs(form, "own", ("neutral", "contradiction", "entailment"))
    assert (named.outputs, named.note) == ((2, 0, 1), "")


@pytest.mark.parametrize(
    "names",
    [
        ("code", "prose", "other"),
        ("entailment", "neutral"),
        ("entailment", "neutral", "contradiction", "unrelated"),
        ("entailment", "neutral", "refutation"),
        ("LABEL_0", "LABEL_1"),
    ],
)
def test_classes_that_are_not_the_tasks_are_refused_with_both_lists(names):
    with pytest.raises(DataError, match="labels do not match the classes of own") as caught:
        choice_outputs(GLUE["mnli"].form, "own", names)
    assert "entailment, neutral, contradiction" in str(caught.value)
    assert ", ".join(names) in str(caught.value)


def form_of(folder: Path, document: dict[str, Any], section: Any = SECTION) -> Any:
    write_task(folder, document)
    task = loaded(folder, document["task"])[document["task"]]
    return document_form(task.tasks[document["task"]], section)


def test_the_tables_form_holds_for_the_tables_choices_alone(folder, tmp_path):
    own = write_class_tasks(tmp_path / "tasks")
    with pytest.raises(
        DataError,
        match=r"each of its choices \(.*\) is; its columns are hypothesis, label, premise",
    ):
        form_of(own, mnli(own, doc_to_choice=["True", "False", "Neither"]))
    told = SECTION.model_copy(update={"text": "premise", "text_pair": "hypothesis"})
    choices = ["entailment", "contradiction", "neutral"]
    found = form_of(own, mnli(own, doc_to_choice=choices), told)
    assert (found.text, found.text_pair, list(found.classes)) == ("premise", "hypothesis", choices)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"text": "absent"}, "no column absent"),
        ({"text_pair": "body"}, "names no column as text"),
        (
            {"text": "body", "label": "topic"},
            "unknown key label; there are text, text_pair, classes",
        ),
        ({"text": "body", "classes": ["a", "b"]}, "names 2 classes, and it has 3 choices"),
    ],
)
def test_what_a_task_says_wrongly_is_refused(tmp_path, given, said):
    own = write_class_tasks(tmp_path / "tasks")
    with pytest.raises(DataError, match=said):
        form_of(own, topics_task(own, metadata={"classifier": given}))


def test_choices_that_differ_by_document_are_no_classes(tmp_path):
    own = write_class_tasks(tmp_path / "tasks")
    changed = sst2(own, doc_to_choice="{{[sentence, 'positive']}}")
    with pytest.raises(DataError, match="other texts in every document"):
        form_of(own, changed)


def test_the_table_has_lm_evals_own_wording():
    """Of the installed release: a choice that is reworded there would no longer be recognised."""
    import lm_eval
    import yaml

    class Loader(yaml.SafeLoader):
        """Functions are named and not run."""

    Loader.add_multi_constructor("!function", lambda loader, suffix, node: suffix)
    tasks = Path(lm_eval.__file__).parent / "tasks" / "glue"
    found = {}
    for file in tasks.rglob("*.yaml"):
        document = yaml.load(file.read_text(), Loader)
        if "include" in document:
            document = yaml.load((file.parent / document["include"]).read_text(), Loader) | document
        found[document["task"]] = tuple(document["doc_to_choice"])
    assert {name: one.choices for name, one in GLUE.items()} == found


def test_the_perplexity_of_a_hopeless_model_is_still_a_number():
    assert label_perplexity([math.log(0.5)] * 4) == pytest.approx(2.0)
    assert math.isfinite(label_perplexity([-1e6, -1.0]))
