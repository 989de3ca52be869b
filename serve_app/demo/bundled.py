"""Where the demo model lies."""

from pathlib import Path

BUNDLED_MODEL = Path(__file__).parent / "moss_nano"
