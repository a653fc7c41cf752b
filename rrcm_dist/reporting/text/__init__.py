"""The report as text: JSON, CSV, Markdown, LaTeX."""
