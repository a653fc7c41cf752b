"""How far a certification has come, read from its folder by any process, without torch."""

from pathlib import Path

from rrcm_dist.certification.ledger.place import LEDGER_FILE
from rrcm_dist.certification.ledger.reader import LedgerReader
from rrcm_dist.errors import RRCMError


def counted_draws(run: Path) -> int:
    """Draws that the ledger of the run holds; 0 where there is none that can be read."""
    try:
        with LedgerReader(run / LEDGER_FILE) as ledger:
            return ledger.draws()
    except RRCMError:
        return 0
