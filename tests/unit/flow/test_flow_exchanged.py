"""A resumed run whose model is another file by now."""

from dataclasses import replace
from types import SimpleNamespace

from harness.flow.run import _tell_if_exchanged
from harness.runs.folder import RunFolder, read_run, study_digest
from harness.study.file import parse_study
from tests.samples import sample_study, sample_trial_result, sample_variant


def test_it_says_what_is_measured_again_and_counts_as_undecided_until_then(tmp_path):
    study, variant, warned = parse_study(sample_study(), source="study"), sample_variant(), []
    manifest = {"schema_version": 1, "study_digest": study_digest(study), "artefacts": {}}
    settings = SimpleNamespace(warn=warned.append)
    with RunFolder.create(tmp_path / "run", manifest) as folder:
        folder.journal.add(variant)
        folder.journal.add(sample_trial_result())
        folder.write_verdicts(())

        _tell_if_exchanged(variant, folder, settings)
        assert not read_run(folder.path).interrupted
        _tell_if_exchanged(replace(variant, sha256="cd" * 32), folder, settings)
        assert read_run(folder.path).interrupted

    (said,) = warned
    assert "teacher-fp32 is another file than when this run was begun" in said
    assert "1 finished trial are measured again" in said
