"""Checkpoint to servable artefact: ONNX, precisions, parity, warm-up, manifest."""
