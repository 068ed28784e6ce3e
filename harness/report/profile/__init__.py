"""The profile of one model: page, plots, findings."""
