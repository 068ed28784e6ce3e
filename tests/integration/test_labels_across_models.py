"""One data set, models that call and number its classes differently: right and alike by class.

The right value is known beforehand: the labels are what the bare library says of each text alone,
so every model of the same weights is right on all rows and agrees with its teacher on all rows.
"""

import json
import shutil

import numpy as np
import pytest
import yaml

from harness.errors import StudyError
from harness.export.in_process import CheckpointPredictor
from harness.flow.input_checks import check_inputs
from harness.flow.opening import open_families
from harness.flow.options import ignore_progress
from harness.quality.collection import collect_outcomes
from harness.quality.losses import compare_with_teacher
from harness.study.file import load_study
from harness.tasks.classification.confusions import confusions, find_relabelling
from harness.types import ModelFormat, ModelVariant, Precision, TensorSpec
from tests.tiny_models import LINES, make_classifier

ROWS = 60


def texts():
    words = " ".join(LINES).split()
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(words, rng.integers(3, 12))) for _ in range(ROWS)]


def make_model(folder, names, order=None, like=None):
    """A model under these names, of the weights of `like`; `order` permutes the outputs."""
    import torch
    import transformers

    if like is None:
        make_classifier(folder, [f"class {n}" for n in range(len(names))], seed=0)
    else:
        shutil.copytree(like, folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        logits = torch.cat([model(**tokenizer(t, return_tensors="pt")).logits for t in texts()])
        model.classifier.bias -= logits.mean(0)  # so that every class is predicted
        model.classifier.weight /= logits.std(0)[:, None]
        model.classifier.bias /= logits.std(0)
        places = list(order or range(len(names)))
        model.classifier.weight.copy_(model.classifier.weight[places].clone())
        model.classifier.bias.copy_(model.classifier.bias[places].clone())
    model.config.id2label = {place: names[one] for place, one in enumerate(places)}
    model.config.label2id = {name: place for place, name in model.config.id2label.items()}
    model.save_pretrained(folder)
    return folder


def bare_predictions(folder):
    """What transformers alone says of each text alone, unpadded."""
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        return [
            int(model(**tokenizer(text, return_tensors="pt")).logits.argmax()) for text in texts()
        ]


def write_study(folder, labels, models, **task):
    rows = [
        json.dumps({"text": text, "label": label})
        for text, label in zip(texts(), labels, strict=True)
    ]
    (folder / "d.jsonl").write_text("\n".join(rows))
    data = {"source": "jsonl", "path": "d.jsonl"}
    document = {
        "name": "labels",
        "families": [
            {
                "name": "texts",
                "task": {
                    "kind": "sequence-classification",
                    "data": data,
                    "max_length": 32,
                    "length_buckets": [8, 32],
                    **task,
                },
                "models": [
                    {"name": name, "role": role, "checkpoint": f"./{name}"}
                    for name, role in models.items()
                ],
            }
        ],
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(document))
    return load_study(path)


def answers(study):
    """By model: what its checkpoint answers to the encoded data, and the labels as it has them."""
    (family,) = open_families(study, study.families, ignore_progress)
    found = {}
    for opened in family.models:
        variant = ModelVariant(
            opened.model.name, "texts", opened.model.role, "sequence-classification",
            ModelFormat.ONNX, Precision.FP32, "", "", study_path(study), (),
            (TensorSpec("logits", "FP32", (len(opened.samples.label_names),)),), 0, None,
        )  # fmt: skip
        inputs = tuple(TensorSpec(n, "INT64", (-1,)) for n in opened.dataset.groups[0].inputs)
        predictor = CheckpointPredictor(
            opened.model, opened.checkpoint, study.families[0].task, opened.dataset
        )
        variant = ModelVariant(**{**vars(variant), "inputs": inputs})
        found[opened.model.name] = (
            collect_outcomes(
                variant, opened.dataset, predictor, batch_size=8, progress=ignore_progress
            ),
            opened.dataset.labels,
        )
    return found


def study_path(study):
    from pathlib import Path

    return Path(study.families[0].models[0].checkpoint)


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["NEG", "NEU", "POS"], None),
        (["LABEL_0", "LABEL_1", "LABEL_2"], None),
        (["neg", "neu", "pos"], [2, 0, 1]),
        (["Neg ", "NEU", "pos"], [1, 2, 0]),
        (["bad", "so so", "good"], None),
    ],
)
def test_a_student_of_the_same_weights_agrees_wholly_whatever_it_calls_its_classes(
    tmp_path, names, order
):
    make_model(tmp_path / "teacher", ["neg", "neu", "pos"])
    make_model(tmp_path / "student", names, order, like=tmp_path / "teacher")
    truth = bare_predictions(tmp_path / "teacher")
    assert len(set(truth)) == 3
    # The student stands first in the study: the teacher's reading still decides.
    study = write_study(tmp_path, truth, {"student": "student", "teacher": "teacher"})
    check_inputs(study)
    found = answers(study)
    (teacher, labels), (student, _) = found["teacher"], found["student"]
    assert teacher.correct.all()
    assert student.correct.all()
    pairs = {
        one.measure: one.value
        for one in compare_with_teacher(student, teacher, family="texts", seed=0)
    }
    assert (pairs["agreement"], pairs["cohen_kappa"]) == (1.0, 1.0)
    assert pairs["right_to_wrong"] == pairs["wrong_to_right"] == 0.0
    assert pairs["kl_mean_nats"] == pytest.approx(0.0, abs=1e-6)
    of_teacher, of_student = confusions(student, teacher, labels)
    assert (of_teacher == of_student).all()


@pytest.mark.parametrize("kind", [int, str, float])
def test_twelve_classes_called_by_numbers_in_text_order(tmp_path, kind):
    names = sorted(map(str, range(12)))
    make_model(tmp_path / "teacher", names)
    truth = [kind(names[one]) for one in bare_predictions(tmp_path / "teacher")]
    study = write_study(tmp_path, truth, {"teacher": "teacher"})
    outcomes, _ = answers(study)["teacher"]
    assert outcomes.correct.all()


def test_a_student_with_a_class_more_is_right_where_it_is_right_and_compared_by_class(tmp_path):
    make_model(tmp_path / "teacher", ["neg", "pos"])
    make_model(tmp_path / "student", ["POS", "NEUTRAL", "NEG"])
    truth = bare_predictions(tmp_path / "teacher")
    study = write_study(tmp_path, truth, {"teacher": "teacher", "student": "student"})
    found = answers(study)
    own = bare_predictions(tmp_path / "student")  # of POS, NEUTRAL, NEG
    right = np.array([{0: 1, 1: -1, 2: 0}[said] for said in own]) == np.array(truth)
    np.testing.assert_array_equal(found["student"][0].correct, right)
    pairs = compare_with_teacher(found["student"][0], found["teacher"][0], family="texts", seed=0)
    agreement = next(one.value for one in pairs if one.measure == "agreement")
    assert agreement == right.mean()


def test_classes_that_the_student_lacks_are_refused_with_the_model_and_both_lists(tmp_path):
    make_model(tmp_path / "teacher", ["neg", "neu", "pos"])
    make_model(tmp_path / "student", ["neg", "pos"])
    truth = bare_predictions(tmp_path / "teacher")
    study = write_study(tmp_path, truth, {"teacher": "teacher", "student": "student"})
    with pytest.raises(StudyError) as caught:
        check_inputs(study)
    (problem,) = caught.value.problems
    assert "the classes of student" in problem
    assert "the data's are [0, 1, 2], the checkpoint's are [neg, pos]" in problem


def test_a_student_whose_classes_are_called_wrongly_is_said_with_what_would_mend_it(tmp_path):
    make_model(tmp_path / "teacher", ["neg", "neu", "pos"])
    make_model(tmp_path / "student", ["neg", "neu", "pos"], like=tmp_path / "teacher")
    rename(tmp_path / "student", ["pos", "neg", "neu"])  # the weights stay: 0 is still negative
    truth = bare_predictions(tmp_path / "teacher")
    study = write_study(tmp_path, truth, {"teacher": "teacher", "student": "student"})
    found = answers(study)
    (teacher, _), (student, labels) = found["teacher"], found["student"]
    assert not student.correct.any()
    told = find_relabelling(
        student, labels, called=("pos", "neg", "neu"), family="texts", teacher=teacher,
        reference=1.0,
    )  # fmt: skip
    assert told.means == ("neg", "neu", "pos")
    assert (told.accuracy, told.mended) == (0.0, 1.0)


def rename(folder, names):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["id2label"] = {str(place): name for place, name in enumerate(names)}
    config["label2id"] = {name: place for place, name in enumerate(names)}
    path.write_text(json.dumps(config))
