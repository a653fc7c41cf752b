"""Figures for papers, drawn with matplotlib: PDF, SVG and PNG, the same bytes from the same numbers."""
