"""The tasks of lm-evaluation-harness, answered by what is served."""
