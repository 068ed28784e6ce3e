"""Which texts an ensemble is sent, and when a winner's ensemble is measured."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from queueing_model import measure

from harness.errors import StudyError
from harness.flow.ensembles import PreparedEnsemble, ensemble_trial, text_groups
from harness.flow.sweep import _measure_ensemble
from harness.serving.ensemble import TextTokenizer, make_ensemble
from harness.study.file import load_study, parse_study
from harness.study.objective import parse_objective
from harness.tasks.encoding import EncodedDataset, EncodedGroup
from harness.tasks.outcomes import TextAnswer
from harness.tasks.samples import Samples
from harness.types import Decision, ServingConfig, Trial, Verdict, WireProtocol, Workload
from tests.sample_run import sample_run

TRIAL = Trial(
    "topics-student-fp32",
    "topics",
    ServingConfig(),
    Workload(WireProtocol.HTTP, 4, 2, 5.0, 1.0, 1),
    stage="confirm",
    repeat=1,
)

SLO = parse_objective("p95 < 50 ms")


def prepared():
    variant = next(one for one in sample_run().variants if one.name == TRIAL.variant)
    ensemble = make_ensemble(variant, TextTokenizer("{}", False, 32, (32,), 0, 0), TextAnswer(()))
    return PreparedEnsemble(ensemble, ())


def verdict(recommended):
    return Verdict("topics", "p95 < 50 ms", Decision.PASS, recommended, "", ())


@dataclasses.dataclass
class Runner:
    digest: str = "now"
    asked: list = dataclasses.field(default_factory=list)
    trials: dict = dataclasses.field(default_factory=dict)
    """What the journal keeps."""

    def sha256(self, trial):
        return self.digest

    def settle(self, trial, slo):
        known = self.trials.get(trial.trial_id)
        if known is not None and known.sha256 == self.digest:
            return known
        self.asked.append(trial)
        result = dataclasses.replace(measure(TRIAL), trial=trial, sha256=self.digest)
        self.trials[trial.trial_id] = result
        return result


def decided(recommended, runner, trials):
    family = SimpleNamespace(ensembles=(prepared(),), family=SimpleNamespace(name="topics"))
    runner.trials = trials
    folder = SimpleNamespace(journal=SimpleNamespace(trials=trials))
    _measure_ensemble(family, verdict(recommended), SLO, runner, folder, lambda step: None)


def test_the_winner_is_measured_as_an_ensemble_once_at_the_load_it_won_with():
    winner, runner = measure(TRIAL), Runner()
    trials = {TRIAL.trial_id: winner}
    decided(TRIAL.trial_id, runner, trials)
    decided(TRIAL.trial_id, runner, trials)  # a resumed run finds it in the journal
    (asked,) = runner.asked
    assert asked == ensemble_trial(winner, prepared().ensemble)
    assert asked.variant == "topics-student-fp32-ensemble"
    assert (asked.workload, asked.serving) == (TRIAL.workload, TRIAL.serving)
    runner.digest = "of another tokenizer"
    decided(TRIAL.trial_id, runner, trials)
    assert len(runner.asked) == 2


@pytest.mark.parametrize("recommended", [None, "topics-teacher-fp32--elsewhere"])
def test_without_a_winner_no_ensemble_is_measured(recommended):
    runner = Runner()
    decided(recommended, runner, {})
    assert runner.asked == []


def test_texts_are_grouped_as_the_tensors_are():
    texts, pairs = ("one", "zwölf", "three"), ("b", "", "c")
    samples = Samples(texts=texts, pairs=pairs, digest="", rows=(0, 1, 2), seed=1)
    groups = tuple(EncodedGroup({}, np.array(rows)) for rows in ([2], [0, 1]))
    dataset = EncodedDataset(
        groups=groups, size=3, truncated=0, padding_share=0.0, digest="", pad_token_id=0
    )
    first, second = text_groups(samples.texts, samples.pairs, dataset)
    assert first["TEXT"].tolist() == [[b"three"]]
    assert [one.decode() for one in second["TEXT"][:, 0]] == ["one", "zwölf"]
    assert second["TEXT_PAIR"].tolist() == [[b"b"], [b""]]


def test_a_study_names_its_ensembles_and_only_a_classifier_has_one():
    path = Path(__file__).parents[3] / "studies" / "reference.yaml"
    document = yaml.safe_load(path.read_text())
    topics, prose, *_ = document["families"]
    name = load_study(path).families[0].models[0].name
    topics["ensemble"] = True
    study = parse_study(document, source="study")
    assert study.family_of(f"{name}-fp32-ensemble").name == topics["name"]
    with pytest.raises(StudyError, match="no variant"):
        load_study(path).family_of(f"{name}-fp32-ensemble")
    prose["ensemble"] = True
    with pytest.raises(StudyError) as caught:
        parse_study(document, source="study")
    assert "a causal-lm task has none" in "\n".join(caught.value.problems)
