"""What a user sees of submitted runs, wherever they are: from the run folder, and from the place that runs them."""
