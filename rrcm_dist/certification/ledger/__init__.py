"""The file that every count is kept in: its tables, its one writer, its readers. Knows nothing of torch."""
