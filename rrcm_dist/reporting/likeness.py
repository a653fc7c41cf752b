"""Whether two runs were made alike; where not, what of them cannot be compared."""

from rrcm_dist.reporting.certificates import Provenance


def same_mode(one: Provenance, other: Provenance) -> bool:
    """Whether the modes are the same, as far as both are known."""
    return not (one.mode and other.mode) or one.mode == other.mode


def unlike(one: Provenance, other: Provenance) -> tuple[str, ...]:
    """Remarks on the differences of mode, n and α as far as both are known, the mode first; () where there are none."""
    remarks = []
    if not same_mode(one, other):
        remarks.append(
            f"{_made(one)} against {_made(other)}: adaptive stops an image once its radii are decided, so ACR and "
            "accuracy between those radii are lower by its nature; compare accuracy at radii that both decided"
        )
    elif one.n is not None and other.n is not None and one.n != other.n:
        remarks.append(f"n {one.n:,} against n {other.n:,}: the larger n certifies more by itself")
    if one.alpha is not None and other.alpha is not None and one.alpha != other.alpha:
        remarks.append(f"α {one.alpha:g} against α {other.alpha:g}: the larger α certifies more by itself")
    return tuple(remarks)


def _made(run: Provenance) -> str:
    if run.n is None:
        return run.mode
    return f"{run.mode}, n at most {run.n:,}" if run.mode == "adaptive" else f"{run.mode} n = {run.n:,}"
