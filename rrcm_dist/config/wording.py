"""Numbers for people."""


def millions(count: int) -> str:
    """85.8M; small counts in full."""
    return f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count:,}"


def quantity(value: float, unit: str) -> str:
    """1.74 PFLOP, with three significant digits."""
    for prefix, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def duration(seconds: float) -> str:
    """A time for people: milliseconds to hours; from two days on, days too."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    hours = f"{seconds / 3600:,.1f} h"
    return hours if seconds < 48 * 3600 else f"{hours} = {seconds / 86400:.1f} days"
