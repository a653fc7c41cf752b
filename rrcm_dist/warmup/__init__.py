"""Representation warm-up (ERW, Liu et al. 2025): a frozen teacher, the alignment with its tokens, the hand-over."""
