"""Text as HTML that shows it as it is: what readers get where rendering fails or takes too long."""

import re
from html import escape

_CITATION = re.compile(r"&lt;sup&gt;&lt;\|([0-9]{1,4})\|&gt;&lt;/sup&gt;")


def escaped(text: str) -> str:
    """A paragraph, with its line breaks and citations."""
    shown = _CITATION.sub(r'<sup class="cite">\1</sup>', escape(text.strip()))
    return f"<p>{shown.replace(chr(10), '<br>' + chr(10))}</p>"
