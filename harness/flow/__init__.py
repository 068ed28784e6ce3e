"""Where the stages meet: run.py is the main job, read top to bottom."""
