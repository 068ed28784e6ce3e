"""Imported once by the process that all measuring processes are forked from.

So a fresh process has the libraries and nothing of any model, and costs milliseconds, not the
seconds that importing PyTorch and transformers takes.
"""

import importlib
from contextlib import suppress

for _name in (
    "onnxruntime",
    "harness.serving.backends.onnxruntime.ort_session",
    "harness.serving.repository",
    "safetensors.torch",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "harness.export.source",
    "harness.export.checkpoint_files",
    "harness.flow.card",
    "harness.profiling.timing",
):
    with suppress(ImportError):  # whoever needs it says what is missing
        importlib.import_module(_name)
