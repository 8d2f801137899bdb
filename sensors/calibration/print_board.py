"""A board to print: PNG and PDF that carry their true size, so that a square of 30 mm comes out as 30 mm."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from sensors.calibration.board import Board, Grey
from sensors.calibration.files import write_beside
from sensors.errors import SpecError, nearest

PAPERS_MM = {"a4": (210.0, 297.0), "a3": (297.0, 420.0), "letter": (215.9, 279.4), "tabloid": (279.4, 431.8)}
_EDGE_MM = 5.0  # what printers leave white
_POINTS_PER_MM = 72 / 25.4
_QUIET = 0.5  # white around the squares of the PNG, in squares
_RULER_MM = 100.0


def print_png(board: Board, path: str | Path, dpi: float = 300.0) -> tuple[int, int]:
    """Write the board with a white margin as PNG; its resolution tag (pHYs) makes a viewer print it in true size.

    Returns:
        Width and height, px.

    Raises:
        SpecError: too few dots to show the markers.
    """
    import cv2

    per_square = _per_square(board, dpi)
    picture = np.pad(board.picture(per_square), round(_QUIET * per_square), constant_values=255)
    content = bytes(cv2.imencode(".png", picture)[1])
    per_m = round(per_square / board.square_m)
    body = b"pHYs" + struct.pack(">IIB", per_m, per_m, 1)
    chunk = struct.pack(">I", 9) + body + struct.pack(">I", zlib.crc32(body))
    end = 8 + 4 + 4 + 13 + 4  # the signature and the header chunk, which comes first
    write_beside(path, content[:end] + chunk + content[end:])
    return picture.shape[1], picture.shape[0]


def print_pdf(board: Board, path: str | Path, dpi: float = 600.0, paper: str = "a4") -> None:
    """Write the board as a page of PDF, in the middle, with a line of 100 mm to measure the print by.

    Args:
        board: what is printed.
        path: the file.
        dpi: dots per inch of the picture within.
        paper: a4, a3, letter or tabloid; the page is turned as the board is.

    Raises:
        SpecError: no such paper, or the board is larger than it.
    """
    if paper.lower() not in PAPERS_MM:
        raise SpecError("paper", "a known paper", f"'{paper}'", nearest(paper.lower(), PAPERS_MM))
    short_mm, long_mm = PAPERS_MM[paper.lower()]
    width_mm, height_mm = (1000 * part for part in board.size_m)
    page_w, page_h = (long_mm, short_mm) if width_mm > height_mm else (short_mm, long_mm)
    if width_mm > page_w - 2 * _EDGE_MM or height_mm > page_h - 2 * _EDGE_MM:
        raise SpecError(
            f"paper {paper}", f"a board of at most {page_w - 2 * _EDGE_MM:g} x {page_h - 2 * _EDGE_MM:g} mm",
            f"{width_mm:g} x {height_mm:g} mm", "Take smaller or fewer squares, or paper=a3.",
        )  # fmt: skip
    left, bottom = (page_w - width_mm) / 2, (page_h - height_mm) / 2
    drawn = [_cm(width_mm, height_mm, left, bottom)]
    if bottom - _EDGE_MM > 6:  # else nobody can read it anyway
        drawn.append(_ruler(left, bottom - 4.0))
        drawn.append(_text(left + _RULER_MM + 5, bottom - 5.0, f"<- {_RULER_MM:g} mm.  {board.describe()}"))
    picture = board.picture(_per_square(board, dpi))
    write_beside(path, _pdf(picture, "\n".join(drawn), page_w, page_h))


def _per_square(board: Board, dpi: float) -> int:
    return round(board.square_m / 0.0254 * dpi)


def _cm(width_mm: float, height_mm: float, left_mm: float, bottom_mm: float) -> str:
    numbers = (_points(part) for part in (width_mm, height_mm, left_mm, bottom_mm))
    return "q {} 0 0 {} {} {} cm /Board Do Q".format(*numbers)


def _ruler(left_mm: float, y_mm: float) -> str:
    ends = [left_mm, left_mm + _RULER_MM]
    ticks = [f"{_points(x)} {_points(y_mm - 1)} m {_points(x)} {_points(y_mm + 1)} l S" for x in ends]
    line = f"{_points(ends[0])} {_points(y_mm)} m {_points(ends[1])} {_points(y_mm)} l S"
    return "\n".join(["0.5 w", line, *ticks])


def _text(left_mm: float, y_mm: float, text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
    return f"BT /F 7 Tf {_points(left_mm)} {_points(y_mm)} Td ({escaped}) Tj ET"


def _points(millimetres: float) -> str:
    return f"{millimetres * _POINTS_PER_MM:.4f}"


def _pdf(picture: Grey, drawn: str, page_w_mm: float, page_h_mm: float) -> bytes:
    """A file of one page (ISO 32000-1)."""
    height, width = picture.shape
    raw = zlib.compress(picture.tobytes(), 9)
    image = (
        f"<< /Type /XObject /Subtype /Image /Width {width} /Height {height} /ColorSpace /DeviceGray "
        f"/BitsPerComponent 8 /Interpolate false /Filter /FlateDecode /Length {len(raw)} >>"
    )
    page = (
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {_points(page_w_mm)} {_points(page_h_mm)}] /Contents 4 0 R "
        "/Resources << /XObject << /Board 5 0 R >> /Font << /F 6 0 R >> >> >>"
    )
    content = drawn.encode("ascii")
    objects = [
        # PrintScaling: the one thing that readers of PDF can be told about "fit to page".
        b"<< /Type /Catalog /Pages 2 0 R /ViewerPreferences << /PrintScaling /None >> >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        page.encode(),
        f"<< /Length {len(content)} >>".encode() + b"\nstream\n" + content + b"\nendstream",
        image.encode() + b"\nstream\n" + raw + b"\nendstream",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, places = b"%PDF-1.6\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    trailer = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    return out + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{trailer}".encode()
