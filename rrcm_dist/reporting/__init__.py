"""Tables, figures and pages from certificates."""
