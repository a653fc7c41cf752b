"""DeepSpeed, and what follows the weights that it moves: the target network and averages, at any ZeRO stage."""
