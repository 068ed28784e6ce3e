"""The run folder: what one study measured, as it lies on disk."""
