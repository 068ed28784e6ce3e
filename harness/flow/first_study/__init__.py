"""A first study, written from checkpoints and a data file: what is found in them, and where."""
