"""What a load leaves behind: every request as a row, a load over time."""
