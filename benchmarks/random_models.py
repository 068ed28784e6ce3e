"""Models of the reference models' shapes with random weights: as fast, and there in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

SHAPES = {"random-teacher": (3, 192), "random-student": (1, 64)}
"""Layers and width."""

_CLASSES = 10


def write_random_models(repository: Path) -> list[str]:
    """Write BERT classifiers into a model repository; returns their names."""
    for name, (layers, width) in SHAPES.items():
        folder = repository / name
        (folder / "1").mkdir(parents=True)
        _export(folder / "1" / "model.onnx", layers, width)
        config = pb.ModelConfig(name=name, backend="onnxruntime", max_batch_size=16)
        for tensor in ("input_ids", "attention_mask"):
            config.input.add(name=tensor, data_type=pb.TYPE_INT64, dims=[-1])
        config.output.add(name="logits", data_type=pb.TYPE_FP32, dims=[_CLASSES])
        (folder / "config.pbtxt").write_text(text_format.MessageToString(config), "utf-8")
    return list(SHAPES)


def _export(path: Path, layers: int, width: int) -> None:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": 4096,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 32,
        "intermediate_size": 4 * width,
        "max_position_embeddings": 128,
        "num_labels": _CLASSES,
    }
    model: Any = BertForSequenceClassification(BertConfig(**sizes))
    model.eval()

    class Logits(torch.nn.Module):
        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return model(input_ids=input_ids, attention_mask=attention_mask).logits

    ids = torch.randint(5, 4000, (2, 8))
    axes = {0: "batch", 1: "sequence"}
    torch.onnx.export(
        Logits(),
        (ids, torch.ones_like(ids)),
        str(path),
        dynamo=True,
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_shapes={"input_ids": axes, "attention_mask": axes},
        external_data=False,
        verbose=False,
    )
