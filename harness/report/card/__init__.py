"""The report card: page, tables, plots."""
