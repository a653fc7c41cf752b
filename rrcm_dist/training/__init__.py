"""The engine, checkpoints and the loop; pre-training and fine-tuning on top."""
