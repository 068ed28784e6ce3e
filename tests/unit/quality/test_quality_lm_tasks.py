"""What is wrong with an lm-eval task is one line, before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from harness.errors import DataError, UsageError
from harness.quality.lm_eval import hub
from harness.quality.lm_eval.generation import Prompt, Stop, generation_settings, not_kept_of
from harness.quality.lm_eval.streamed import StreamScorer
from harness.quality.lm_eval.tasks import Chat, LoadedTask, TaskRequest, load_tasks
from harness.tasks.generation.streamed import StreamedAnswer
from harness.types.generation import FinishReason
from tests.lm_tasks import generation, multiple_choice, perplexity, write_task, write_tasks
from tests.samples import sample_variant


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("tasks"), documents=6)


def load(path: Path, **options) -> tuple[LoadedTask, ...]:
    return load_tasks(TaskRequest((str(path),), **options))


def test_a_task_is_found_by_name_in_a_folder_and_by_file(folder: Path) -> None:
    (by_name,) = load_tasks(TaskRequest(("local_mc",), (folder,), limit=2))
    (by_file,) = load(folder / "local_mc.yaml", limit=2)

    assert list(by_name.tasks) == list(by_file.tasks) == ["local_mc"]
    assert len(by_name.tasks["local_mc"].instances) == 6
    assert by_name.digest == by_file.digest


def test_what_is_asked_decides_the_digest(folder: Path) -> None:
    (two,), (again,), (three,) = (
        load(folder / "local_ppl.yaml", limit=limit) for limit in (2, 2, 3)
    )

    assert two.digest == again.digest != three.digest


@pytest.mark.parametrize(
    ("make", "changes", "said"),
    [
        (multiple_choice, {"doc_to_text": "{{questoin}}"}, "'questoin' is undefined"),
        (multiple_choice, {"doc_to_target": "answr"}, "column 'answr', but the data has question"),
        (perplexity, {"test_split": "tset"}, "no column or split 'tset'"),
        (perplexity, {"output_type": "rolling"}, "Got invalid output_type 'rolling'"),
        (generation, {"generation_kwargs": {"do_sample": True}}, "answers greedily alone"),
        (
            multiple_choice,
            {"metric_list": [{"metric": "likelihood"}]},
            "its metric likelihood cannot be aggregated",
        ),
    ],
)
def test_a_task_that_does_not_fit_its_data_is_refused(
    folder: Path, tmp_path: Path, make, changes, said: str
) -> None:
    with pytest.raises(DataError, match="lm-eval: task ") as refused:
        load(write_task(tmp_path, make(folder, **changes)))

    assert said in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_an_empty_split_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").touch()
    empty = {"dataset_kwargs": {"data_files": {"test": str(tmp_path / "none.jsonl")}}}

    with pytest.raises(DataError, match="its data is empty"):
        load(write_task(tmp_path, perplexity(folder, **empty)))


def test_a_hub_that_cannot_be_reached_is_said_at_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    monkeypatch.delenv("https_proxy", raising=False)
    hub = {"dataset_path": "nobody/absent", "dataset_kwargs": {}}

    with pytest.raises(DataError, match="the Hugging Face hub cannot be reached") as refused:
        load(write_task(tmp_path, perplexity(folder, **hub)))

    assert "--tasks FILE.yaml" in refused.value.next_step


def a_group(folder: Path, *members: object, name: str = "both") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"group": name, "task": list(members)}))
    return path


def test_a_group_is_found_by_its_file_with_the_members_beside_it(folder: Path) -> None:
    (by_file,) = load(a_group(folder, "local_mc", {"task": "local_ppl", "num_fewshot": 1}), limit=2)
    (by_name,) = load_tasks(TaskRequest(("both",), (folder,), limit=2))

    assert list(by_file.tasks) == ["local_mc", "local_ppl"]
    assert (by_file.name, by_file.digest) == ("both", by_name.digest)


def test_a_group_with_local_data_needs_no_hub_and_its_mistake_is_not_the_hubs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    write_task(tmp_path, multiple_choice(folder, doc_to_text="{{questoin}}"))
    with pytest.raises(DataError, match="'questoin' is undefined"):
        load(a_group(tmp_path, "local_mc"))


@pytest.mark.slow
def test_a_group_may_have_tasks_of_lm_evals_own(folder: Path, tmp_path: Path) -> None:
    """Their data is on the hub, so that is what is missing here."""
    with pytest.raises(DataError, match="the Hugging Face hub cannot be reached"):
        load(a_group(tmp_path, "sst2"))


def test_a_task_that_is_named_twice_is_refused(folder: Path) -> None:
    group = a_group(folder, "local_mc", "local_ppl", name="twice")
    twice = TaskRequest((str(folder / "local_mc.yaml"), str(group)), limit=2)
    with pytest.raises(UsageError, match=r"task local_mc is in .*local_mc.yaml and in twice"):
        load_tasks(twice)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        load(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": 0.7}, "it samples"),
        ({"num_beams": 4}, "its num_beams is 4"),
        ({"repetition_penalty": 1.1}, "its repetition_penalty is 1.1"),
        ({"min_new_tokens": 3}, "its min_new_tokens is 3"),
        ({"max_length": 30}, "set max_gen_toks"),
        ({"max_gen_toks": 0}, "nothing would be generated"),
        ({"stop_words": ["x"]}, "its setting stop_words is not known"),
    ],
)
def test_a_generation_that_is_more_than_greedy_is_refused(
    folder: Path, tmp_path: Path, settings, said: str
) -> None:
    asked = {"until": ["."], **settings}
    with pytest.raises(DataError, match=said):
        load(write_task(tmp_path, generation(folder, generation_kwargs=asked)))


def test_settings_that_change_no_greedy_generation_are_taken(folder: Path, tmp_path: Path) -> None:
    asked = {
        "until": "end", "do_sample": False, "temperature": 0.7, "top_p": 0.9, "num_beams": 1,
        "repetition_penalty": 1.0, "max_new_tokens": 7,
    }  # fmt: skip
    (task,) = load(write_task(tmp_path, generation(folder, generation_kwargs=asked)))
    (settings,) = task.generations
    assert (settings["until"], settings["max_gen_toks"]) == (["end"], 7)
    assert task.generated_tokens == 7


def test_what_a_checkpoint_itself_would_change_is_said_with_its_remedy(tmp_path: Path) -> None:
    own = {"repetition_penalty": 1.1, "do_sample": True, "top_k": 20, "max_new_tokens": 512}
    (tmp_path / "generation_config.json").write_text(json.dumps(own))
    settings = generation_settings(tmp_path)
    asked = {"do_sample": False, "until": [], "max_gen_toks": 64}

    penalty, longest = not_kept_of(settings, asked, writes=False)

    assert "sets repetition_penalty to 1.1" in penalty
    assert "set repetition_penalty: 1 in the task's generation_kwargs" in penalty
    assert "sets max_new_tokens to 512" in longest
    kept = {**asked, "repetition_penalty": 1.0, "max_gen_toks": 512}
    assert not list(not_kept_of(settings, kept, writes=False))


@pytest.mark.parametrize(
    ("own", "asked", "said"),
    [
        ({"repetition_penalty": 1.05}, {}, []),
        ({"repetition_penalty": 1.05}, {"repetition_penalty": 1.05}, []),
        ({"repetition_penalty": 1.05}, {"repetition_penalty": 1.0}, ["with 1.05: leave"]),
        ({"no_repeat_ngram_size": 3}, {"no_repeat_ngram_size": 0}, ["to 0, and the served"]),
        ({"suppress_tokens": [5]}, {"suppress_tokens": None}, ["suppress_tokens to None"]),
        ({"min_length": 4}, {"min_length": 0}, ["leave min_length out"]),
        ({"num_beams": 4}, {}, ["sets num_beams to 4"]),
        ({"num_beams": 4}, {"num_beams": 1}, []),
        ({"encoder_repetition_penalty": 2.0}, {}, ["encoder_repetition_penalty to 2.0"]),
        ({}, {"repetition_penalty": 1.0}, []),
    ],
)
def test_a_model_that_writes_keeps_its_checkpoints_settings_and_no_tasks(
    own, asked, said: list[str]
) -> None:
    normal = {"do_sample": False, "until": [], "max_gen_toks": 64, **asked}
    found = list(not_kept_of(own, normal, writes=True))
    assert len(found) == len(said)
    assert all(part in one for part, one in zip(said, found, strict=True))


def test_an_empty_stop_string_ends_a_streamed_text_at_its_first_token() -> None:
    """lm-eval's own model finds it at once; a server takes no such stop."""
    sent = []

    class Recorder:
        def write(self, model, token_ids, sampling) -> StreamedAnswer:
            sent.append(sampling)
            return StreamedAnswer("a", (3,), FinishReason.LENGTH)

    stops = (Stop("", 2), Stop("<|end|>", 3))
    scorer = StreamScorer(sample_variant(), Recorder())
    assert scorer.write([Prompt((1, 2), 16, stops)]) == [(3,)]
    assert (sent[0].max_tokens, sent[0].stop) == (1, ("<|end|>",))


def test_a_chat_template_is_another_task_to_the_journal(folder: Path) -> None:
    plain, chat, turns = (
        load_tasks(TaskRequest(("local_mc",), (folder,), 2, None, one))[0]
        for one in (None, Chat(), Chat(multiturn=True))
    )
    assert len({plain.digest, chat.digest, turns.digest}) == 3
    assert (plain.chat, chat.chat) == (None, Chat())


@pytest.mark.parametrize(
    ("proxy", "asked"),
    [
        ("", ("hub.example", 443)),
        ("http://proxy.example:3128", ("proxy.example", 3128)),
        ("proxy.example:3128", ("proxy.example", 3128)),
        ("http://user:secret@proxy.example", ("proxy.example", 80)),
    ],
)
def test_the_hub_is_looked_for_through_the_proxy_as_clients_write_it(monkeypatch, proxy, asked):
    found = []

    def connect(address, timeout):
        found.append(address)
        raise OSError

    monkeypatch.setattr(hub.socket, "create_connection", connect)
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.delenv("https_proxy", raising=False)
    assert not hub._reachable("https://hub.example")
    assert found == [asked]
