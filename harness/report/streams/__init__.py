"""Answers that come token by token, over the load: tables, plots, and single requests."""
