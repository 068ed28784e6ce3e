"""A student's roles beside its teacher: one section for page, Markdown and terminal."""
