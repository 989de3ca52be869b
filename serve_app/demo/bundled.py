"""The directory of the demo model in this package."""

from pathlib import Path

BUNDLED_MODEL = Path(__file__).parent / "moss_nano"
