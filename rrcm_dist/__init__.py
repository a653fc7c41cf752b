"""rrcm-dist: distributed pre-training, fine-tuning and certification around rRCM (Lei et al., ICLR 2025)."""

__version__ = "0.1.0"
