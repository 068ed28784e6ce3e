"""From a study's section to samples, and from samples to the tensors that one checkpoint takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.errors import CheckpointError, did_you_mean
from harness.tasks.encoding import EncodedDataset
from harness.tasks.labels import LabelReader
from harness.tasks.model_inputs import model_inputs
from harness.tasks.registry import family_of
from harness.tasks.roles.reading import Reading
from harness.tasks.rows import DataTable, read_table, refuse
from harness.tasks.samples import Samples
from harness.tasks.section import TaskSection
from harness.tasks.tokenizers import check_tokens, load_tokenizer, open_bare, replaced_tokens


def load_samples(  # noqa: PLR0913  (what is read, and for whom)
    task: TaskSection,
    *,
    seed: int,
    label_names: Sequence[str] | None,
    data_file: Path | None = None,
    model: str = "the model",
    teacher: LabelReader | None = None,
    like: LabelReader | None = None,
    table: DataTable | None = None,
) -> Samples:
    """Read and check the samples of a task.

    Labels are mapped to the order of `label_names`, so load once per checkpoint: two checkpoints
    of one family may number their classes differently.

    Args:
        task: the study's section.
        seed: draws `task.samples` of the rows where there are more.
        label_names: the checkpoint's id2label, in order; names like LABEL_0 count as no names.
            None where they are not known: labels are then left out.
        data_file: where the rows of `source: reference` lie.
        model: whose classes they are, for messages.
        teacher: how the same labels were read for the family's teacher; None for the teacher's.
        like: read the labels as another column of the same data was, rather than by their own.
        table: the task's rows, where they have been read already.

    Raises:
        DataError: with every problem of the data: missing columns, wrong types, unknown labels.
    """
    table = read_table(task.data, data_file) if table is None else table
    _check_columns(table, task)
    return family_of(task).read(task, Reading(table, seed, label_names, model, teacher, like))


def load_training_samples(
    task: TaskSection,
    *,
    label_names: Sequence[str] | None,
    data_file: Path | None = None,
    like: LabelReader | None = None,
) -> Samples | None:
    """All rows that a task's models were trained on; None where the study does not name them.

    Args:
        task: the study's section.
        label_names: the checkpoint's id2label, in order.
        data_file: where the training rows of `source: reference` lie.
        like: how the labels of the task's own data were read for that checkpoint.

    Raises:
        DataError: as `load_samples`.
    """
    data = task.training_data or (task.data if data_file else None)
    if data is None:
        return None
    whole = task.model_copy(update={"data": data, "samples": None})
    return load_samples(whole, seed=0, label_names=label_names, data_file=data_file, like=like)


def _check_columns(table: DataTable, task: TaskSection) -> None:
    named = [
        *family_of(task).columns(task).items(),
        *(("slices", one) for one in task.slices),
    ]
    missing = [
        "; ".join(filter(None, (f"no column '{column}' (the task's '{key}')", meant)))
        for key, column in named
        if column and column not in table.columns
        for meant in [did_you_mean(column, table.columns)]
    ]
    refuse(table.source, missing, next_step=f"its columns are: {', '.join(table.columns)}")


def encode(
    task: TaskSection, samples: Samples, tokenizer_folder: Path, *, trust_remote_code: bool = False
) -> EncodedDataset:
    """Tokenise and pad a task's samples for one checkpoint.

    Args:
        task: the study's section: lengths, buckets, number of windows.
        samples: what `load_samples` read for this checkpoint.
        tokenizer_folder: the checkpoint, or the `tokenizer` folder of one of its variants.
        trust_remote_code: run code that the checkpoint brings.

    Raises:
        CheckpointError: the folder's tokenizer is missing or unusable, or another model's.
        DataError: the texts are too short to score.
        MissingExtraError: transformers is not installed.
    """
    family = family_of(task)
    tokenizer = load_tokenizer(tokenizer_folder, trust_remote_code=trust_remote_code)
    inputs = model_inputs(tokenizer, tokenizer_folder, family, trust_remote_code=trust_remote_code)
    try:
        dataset = family.encode(task, samples, tokenizer, inputs)
    except Exception as error:
        if type(error) is not Exception:
            raise
        # What the tokenizers package raises, for a vocabulary without its unknown token say.
        raise CheckpointError(
            f"{tokenizer_folder}: its tokenizer cannot encode the data: {error}",
            next_step="save the model's own tokenizer beside it, with all its special tokens",
        ) from error
    largest = max(int(group.inputs["input_ids"].max()) for group in dataset.groups)
    check_tokens(tokenizer, largest, tokenizer_folder, trust_remote_code=trust_remote_code)
    return dataset


def tokenizer_note(
    task: TaskSection, samples: Samples, folder: Path, *, trust_remote_code: bool = False
) -> str:
    """What to know of a checkpoint's tokenizer; empty where there is nothing to say.

    Args:
        task: what it is used for.
        samples: the study's rows, of which the first are compared, beside texts of ours.
        folder: the checkpoint.
        trust_remote_code: run code that the checkpoint brings.

    Raises:
        CheckpointError: the tokenizer cannot be read.
    """
    library = open_bare(folder, trust_remote_code=trust_remote_code)
    notes = (
        replaced_tokens(library, folder, samples),
        family_of(task).tokenizer_note(task, library),
    )
    return "; ".join(note for note in notes if note)
