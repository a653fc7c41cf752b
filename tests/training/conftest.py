"""Tests of the rooms below share what lies here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
