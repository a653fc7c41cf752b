"""The report as one HTML page that loads nothing: figures first, then tables, then where the numbers come from."""

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from string import Template

import numpy as np

from rrcm_dist.reporting.certificates import Certificates
from rrcm_dist.reporting.page import drawings
from rrcm_dist.reporting.page.cards import headline_cards
from rrcm_dist.reporting.page.comparisons import difference_charts
from rrcm_dist.reporting.page.distributions import agreement_chart, draws_chart
from rrcm_dist.reporting.page.drawings import Look
from rrcm_dist.reporting.page.tables import accuracy_table, plain_table, provenance_table, published_comparison
from rrcm_dist.reporting.published import PublishedTable
from rrcm_dist.reporting.summary import Summary, families
from rrcm_dist.reporting.text.contents import (
    PlainTable,
    bounds_table,
    comparison_remarks,
    comparison_table,
    cost_table,
    gaps_note,
)
from rrcm_dist.reporting.verification.page import verification_sections
from rrcm_dist.reporting.verification.section import OTHER_GUARANTEE, VerificationSection
from rrcm_dist.reporting.verification.tables import epsilon_text

HERE = Path(__file__).parent


def render_page(
    title: str,
    runs: Sequence[Certificates],
    summary: Summary,
    published: PublishedTable | None,
    notes: Sequence[str],
    verification: VerificationSection | None = None,
) -> str:
    """The page's HTML: self-contained, light and dark, from phone to wide screen.

    Args:
        title: Heading of the page.
        runs: What it is about; the curves are computed from them. () where there is verification alone.
        summary: Their numbers at the chosen radii.
        published: Results to stand beside, or None.
        notes: What a reader must keep in mind, most important first.
        verification: What ℓ∞ verification found, in sections of its own; or None.
    """
    sections = _smoothing_sections(runs, summary, published, notes) if runs else []
    if verification is not None:
        if runs:
            sections.append(_section("Another guarantee: ℓ<sub>∞</sub>", escape(OTHER_GUARANTEE), " "))
        sections += [_section(*parts) for parts in verification_sections(verification)]
    leads = [_lead(runs)] if runs else []
    leads += [_verification_lead(verification)] if verification is not None else []
    return Template((HERE / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        eyebrow=_eyebrow(runs, verification),
        lead=" ".join(leads),
        sections="\n".join(section for section in sections if section),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        script=(HERE / "page.js").read_text(encoding="utf-8"),
        version=_version(),
        date=datetime.now(tz=UTC).date().isoformat(),
    )


def _eyebrow(runs: Sequence[Certificates], verification: VerificationSection | None) -> str:
    kinds = ["Randomized smoothing · ℓ<sub>2</sub> certificates"] if runs else []
    kinds += ["Interval bounds · ℓ<sub>∞</sub> verification"] if verification is not None else []
    return " — ".join(kinds)


def _verification_lead(verification: VerificationSection) -> str:
    names = ", ".join(dict.fromkeys(escape(run.name) for run in verification.runs))
    epsilons = ", ".join(epsilon_text(epsilon) for epsilon in sorted({run.epsilon for run in verification.runs}))
    images = sorted({run.images for run in verification.runs})
    count = f"{images[0]:,}" if len(images) == 1 else f"{images[0]:,} to {images[-1]:,}"
    return f"{names} verified within ε {epsilons} (ℓ<sub>∞</sub>) on {count} test images."


def _smoothing_sections(
    runs: Sequence[Certificates], summary: Summary, published: PublishedTable | None, notes: Sequence[str]
) -> list[str]:
    look = Look.of(runs)
    return [
        headline_cards(summary),
        _curves(runs, look),
        _side_by_side(runs, look),
        _acr(summary, look),
        _section("In numbers", _numbers_intro(summary), accuracy_table(summary, look)),
        _compared(summary, look),
        _published(runs, summary, look, published),
        _plain(bounds_table(summary), look),
        _outcomes(runs, look),
        _agreement(runs, look),
        _cost(runs, summary, look),
        _section(
            "To keep in mind", "", f'<ul class="notes">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>'
        ),
        _section("Where it comes from", "", provenance_table(runs, look)),
    ]


def _section(heading: str, intro: str, body: str) -> str:
    if not body:
        return ""
    return f"<section><h2>{heading}</h2>{f'<p>{intro}</p>' if intro else ''}{body}</section>"


def _lead(runs: Sequence[Certificates]) -> str:
    counts = sorted({run.images for run in runs})
    images = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    sigmas = ", ".join(f"{sigma:g}" for sigma in sorted({run.sigma for run in runs}))
    names = [escape(name) for name in families(runs)]
    who = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    settings = _shared_settings(runs)
    return f"{who} at σ {sigmas}, certified on {images} test images{f' ({settings})' if settings else ''}."


def _shared_settings(runs: Sequence[Certificates]) -> str:
    first = runs[0].provenance.settings
    shared = (key for key in ("n0", "n", "alpha") if key in first)
    alike = [key for key in shared if all(run.provenance.settings.get(key) == first[key] for run in runs)]
    adaptive = any(run.provenance.mode == "adaptive" for run in runs)
    said = (("α", "=") if key == "alpha" else (key, "≤" if key == "n" and adaptive else "=") for key in alike)
    return ", ".join(
        f"{name}\u00a0{sign}\u00a0{escape(first[key])}" for key, (name, sign) in zip(alike, said, strict=True)
    )


def _curves(runs: Sequence[Certificates], look: Look) -> str:
    intro = (
        "The share of test images, in per cent, that the smoothed classifier gets right and provably keeps right "
        "within every ℓ<sub>2</sub> perturbation of size r. Bands hold the whole curve with 95 % over the choice of "
        "images (simultaneous, equal local levels)."
    )
    return _section("Certified accuracy against radius", intro, drawings.all_curves(runs, look))


def _side_by_side(runs: Sequence[Certificates], look: Look) -> str:
    intro = "The same curves, one noise level at a time, on common axes."
    return _section("Side by side at each σ", intro, drawings.side_by_side(runs, look))


def _compared(summary: Summary, look: Look) -> str:
    if not summary.comparisons:
        return ""
    table = comparison_table(summary)
    intro = (
        "The difference of certified accuracy, in points, on the images that both runs certified. Bands hold the whole "
        "curve with 95 % (Gaussian multiplier bootstrap): where one leaves 0, so does the difference."
    )
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in comparison_remarks(summary.comparisons))
    warned = f'<ul class="notes">{remarks}</ul>' if remarks else ""
    body = warned + difference_charts(summary.comparisons, look) + _explained(table, look)
    return _section(table.caption, intro, body)


def _agreement(runs: Sequence[Certificates], look: Look) -> str:
    if all(np.isnan(run.agreement).all() for run in runs):
        return ""
    bounds = [run for run in runs if run.provenance.agreement == "bound"]
    which = (
        "its lower bound" if len(bounds) == len(runs) else "its estimate, or its lower bound where a log has no more"
    )
    intro = (
        "The share of images whose class chosen has at least probability p under noise"
        f"{f' ({which})' if bounds else ' (successes / n)'}. The axis is stretched by Φ⁻¹, so the certified radius "
        "σ Φ⁻¹(p) grows along it evenly. Below ½ an image abstains."
    )
    return _section("How sure the classifier is", intro, agreement_chart(runs, look))


def _cost(runs: Sequence[Certificates], summary: Summary, look: Look) -> str:
    table = cost_table(summary)
    if not table.lines:
        return ""
    chart = draws_chart(runs, look)
    stopped = "The chart shows the share of images that are undecided after so many draws." if chart else ""
    return _section(table.caption, stopped, chart + _explained(table, look))


def _plain(table: PlainTable, look: Look) -> str:
    return _section(table.caption, escape(table.explanation), plain_table(table, look))


def _explained(table: PlainTable, look: Look) -> str:
    return f'{plain_table(table, look)}<p class="below">{escape(table.explanation)}</p>'


def _acr(summary: Summary, look: Look) -> str:
    intro = "Mean of correct × radius, with 95 % intervals (Student t over images); all on one scale that starts at 0."
    return _section("Average certified radius", intro, drawings.acr_rows(summary, look))


def _numbers_intro(summary: Summary) -> str:
    intro = "Certified accuracy in % with 95 % Wilson intervals, each for itself."
    if len(summary.rows) > 1:
        intro += " The best value at each radius is underlined."
    return intro + escape(gaps_note(row.gaps for row in summary.rows))


def _published(runs: Sequence[Certificates], summary: Summary, look: Look, published: PublishedTable | None) -> str:
    several = any(len(envelope.sigmas) > 1 for envelope in summary.envelopes)
    if published is None:
        if not several:
            return ""
        intro = "At every radius the highest curve of any σ: the convention by which papers draw one curve per method."
        return _section("Best of σ", intro, drawings.envelopes(runs, look, None))
    intro = (
        f"Each method at its own best of σ at each radius, on {escape(published.title)}. Published values: "
        f"{escape(published.source)}. Test images and n may differ from those here."
    )
    body = drawings.envelopes(runs, look, published) + published_comparison(runs, published)
    return _section("Beside published results", intro, body)


def _outcomes(runs: Sequence[Certificates], look: Look) -> str:
    intro = "Every image of a run, by what the smoothed classifier says of it and how far the certificate reaches."
    return _section("Where the images end up", intro, drawings.outcomes(runs, look))


def _version() -> str:
    try:
        return version("rrcm-dist")
    except PackageNotFoundError:
        return ""
