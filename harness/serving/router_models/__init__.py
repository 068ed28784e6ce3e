"""What Triton's Python backend runs between two models; copied into the model repository."""
