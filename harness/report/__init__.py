"""Stored results to tables, plots, one HTML file and Markdown; needs nothing but the run."""
