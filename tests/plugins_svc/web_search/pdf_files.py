"""Small PDF files, written by hand."""

import zlib


def pdf(*pages: str, title: str = "", filtered: bytes | None = None) -> bytes:
    """A PDF with a line of ASCII on each page; `filtered` replaces each page's deflated content."""
    kids = " ".join(f"{5 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        f"<< /Title ({title}) >>".encode(),
    ]
    for number, text in enumerate(pages):
        page = (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] /Contents {6 + 2 * number} 0 R "
            "/Resources << /Font << /F 3 0 R >> >> >>"
        )
        content = filtered or zlib.compress(f"BT /F 12 Tf 20 200 Td ({text}) Tj ET".encode())
        head = f"<< /Filter /FlateDecode /Length {len(content)} >>\nstream\n".encode()
        objects += [page.encode(), head + content + b"\nendstream"]
    return _with_xref(objects)


def _with_xref(objects: list[bytes]) -> bytes:
    body = bytearray(b"%PDF-1.4\n")
    table = [b"0000000000 65535 f \n"]
    for number, content in enumerate(objects, 1):
        table.append(b"%010d 00000 n \n" % len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    size = len(table)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R /Info 4 0 R >>\n" % size
    start = len(body)
    return (
        bytes(body)
        + b"xref\n0 %d\n" % size
        + b"".join(table)
        + trailer
        + (b"startxref\n%d\n%%%%EOF\n" % start)
    )
