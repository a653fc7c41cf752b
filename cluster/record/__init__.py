"""What a run folder keeps of its submissions and their lives, and what follows from it; knows no scheduler."""
