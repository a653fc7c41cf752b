"""What several seeds tell."""

from statistics import mean, stdev


def interval(values: list[float], sign: str = "") -> str:
    """'mean ± half of the 95 % interval'; the mean alone of a single value."""
    from scipy.stats import t

    if len(values) < 2:
        return f"{values[0]:{sign}.1f}"
    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return f"{mean(values):{sign}.1f} ± {half:.1f}"
