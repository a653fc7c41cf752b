"""How numbers are written, the same in every output."""

import math

from rrcm_dist.reporting.measures.estimates import Estimate

UNKNOWN = "–"
SMALLEST_P = 1e-4


def percent(estimate: Estimate | None) -> str:
    """'60.0' for 0.6, '–' for None."""
    if estimate is None:
        return UNKNOWN
    return f"{100 * estimate.value:.1f}"


def percent_of(part: int, whole: int) -> str:
    """'16.7' for 1 of 6."""
    return f"{100 * part / whole:.1f}"


def percent_interval(estimate: Estimate) -> str:
    """'55.6–64.2' for [0.556, 0.642]."""
    return f"{100 * estimate.low:.1f}–{100 * estimate.high:.1f}"


def percent_down(share: float) -> str:
    """'59.9' for 0.5999: a lower bound is never rounded up."""
    return f"{math.floor(1000 * share + 1e-9) / 10:.1f}"


def half_width(estimate: Estimate, factor: float, decimals: int) -> str:
    """'±2.1', the wider half of an interval times `factor`; '' where there is none."""
    if math.isnan(estimate.low):
        return ""
    return f"±{factor * max(estimate.high - estimate.value, estimate.value - estimate.low):.{decimals}f}"


def points(share: float) -> str:
    """A difference of accuracies in points: '+3.2', '−3.2'."""
    return signed(100 * share, 1)


def points_interval(estimate: Estimate) -> str:
    """'+1.0 to +5.4'."""
    return f"{points(estimate.low)} to {points(estimate.high)}"


def signed(value: float, decimals: int = 3) -> str:
    """'+0.123', '−0.123'."""
    return f"{value:+.{decimals}f}".replace("-", "−")


def signed_interval(estimate: Estimate) -> str:
    """'+0.100 to +0.146'; '' where one image allows none."""
    return "" if math.isnan(estimate.low) else f"{signed(estimate.low)} to {signed(estimate.high)}"


def radius_text(radius: float) -> str:
    """A radius as short as it can be without loss: '0', '0.25', '1'."""
    return repr(float(radius)).removesuffix(".0")


def acr_interval(estimate: Estimate) -> str:
    """'0.441–0.503'; '' where one image allows none."""
    return "" if math.isnan(estimate.low) else f"{estimate.low:.3f}–{estimate.high:.3f}"


def best_sigma(sigma: float, estimate: Estimate) -> str:
    """'σ 0.5' below an envelope's value; '–' where no σ certifies anything."""
    return f"σ {sigma:g}" if estimate.value > 0 else UNKNOWN


def seconds_text(seconds: float) -> str:
    """'15.4 s', '0.12 s', '–' where not known."""
    return UNKNOWN if math.isnan(seconds) else f"{seconds:.3g} s"


def hours_text(hours: float) -> str:
    """'22.1', '0.0042', '1,234', '–' where not known."""
    if math.isnan(hours):
        return UNKNOWN
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"


def count_text(count: float) -> str:
    """'100,100', '–' where not known."""
    return UNKNOWN if math.isnan(count) else f"{count:,.0f}"


def times_text(factor: float) -> str:
    """'17.3 ×', '–' where not known."""
    return UNKNOWN if math.isnan(factor) else f"{factor:.1f} ×"


def probability_text(probability: float) -> str:
    """As many digits as its distance from 1 asks for: '0.871', '0.99998'; '–' where not known."""
    if math.isnan(probability):
        return UNKNOWN
    digits = 3 if probability in (0.0, 1.0) else max(3, 1 - math.floor(math.log10(max(1 - probability, 1e-9))))
    return f"{probability:.{digits}f}"


def p_value_text(p_value: float) -> str:
    """'0.032', '< 0.0001'."""
    return f"< {SMALLEST_P:.4f}" if p_value < SMALLEST_P else f"{p_value:.2g}"
