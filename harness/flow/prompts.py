"""The prompts of a study's data as they are sent to models that write."""

from __future__ import annotations

from harness.errors import UsageError
from harness.flow.opening import OpenedModel
from harness.load.requests.generation import GenerationRequest
from harness.tasks.generation.rows import PromptDataset, PromptSamples


def prompt_requests(opened: OpenedModel) -> list[GenerationRequest]:
    """The prompts of a model's data as they are sent: texts, or chats.

    Of a chat both its messages, for servers that apply a template themselves, and the tokens of it
    in the model's own template, for Triton's streams.

    Raises:
        UsageError: the model's data has no prompts.
    """
    dataset, samples = opened.dataset, opened.samples
    if not isinstance(dataset, PromptDataset) or not isinstance(samples, PromptSamples):
        raise UsageError(f"{opened.model.name} has no prompts")
    chats = samples.conversations or [()] * len(samples.texts)
    return [
        GenerationRequest(
            "" if chat else text,
            dataset.max_new_tokens,
            tuple(chat),
            input_tokens=len(tokens),
            input_ids=tuple(tokens) if chat else (),
        )
        for text, chat, tokens in zip(samples.texts, chats, dataset.prompts, strict=True)
    ]
