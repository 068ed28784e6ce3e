"""What serving costs, as a section of the report."""
