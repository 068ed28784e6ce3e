"""What Triton's Python backend runs around a classifier; copied into the model repository."""
