"""Text that a model writes: prompts with references, scored beside the teacher's own text."""
