"""What published systems add to rRCM's pre-training: a section each, null where the run does without it."""

from rrcm_dist.config.parts import Part


class AdditionsConfig(Part):
    """Additions to pre-training, each of a paper of its own; rRCM has none of them."""
