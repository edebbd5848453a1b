"""The report as one HTML page that needs nothing beside it: tables, plots, and strips of before and after."""

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import cv2
import numpy as np

from models.evaluation.plots import curves_plot, metrics_plot
from models.evaluation.report import Table, cell
from models.evaluation.results import ClipResult
from models.pictures import Pictures

TILE_PX = 144
_JPEG_QUALITY = 88
_PICTURES = "The pictures are the aligned crops as the networks see and draw them, not yet blended into their frames."

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 1120px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin: 2em 0 .4em } h3 { font-size: 1em; margin: 1.6em 0 .3em }
p { max-width: 75em; margin: .3em 0 .6em } .wide { overflow-x: auto } img { display: block; max-width: 100% }
table { border-collapse: collapse; font-size: 13px } thead th { border-bottom: 1px solid #888 }
th, td { padding: .25em .6em; text-align: left; white-space: nowrap } .n { text-align: right }
tbody tr:nth-child(even) { background: #f4f4f4 }
thead tr.groups th { border-bottom: 0; text-align: center; color: #666 }
.strip { display: flex; align-items: center; margin: 2px 0 }
.strip span { flex: 0 0 13em; text-align: right; padding-right: .8em; box-sizing: border-box }
.strip small { flex: 0 0 144px; text-align: center; color: #666 }
"""


def render_page(report: Mapping[str, Any], tables: Sequence[Table], results: Sequence[ClipResult]) -> str:
    """The whole page. report: as the JSON has it; results: of the clips, for plots and pictures."""
    settings = report["settings"]
    edit = ", ".join(f"{name} = {value:g}" for name, value in settings["values"].items()) or "none"
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    body = [
        "<h1>Evaluation</h1>",
        f"<p>Edit: {escape(edit)}. At most {settings['frames']} frames of each clip. "
        f"{'Metrics in bfloat16. ' if settings['fast'] else ''}{escape(versions)}.</p>",
    ]
    body += [part for table in tables if table.leading for part in _table(table)]
    if results:
        body += [
            f"<h2>Clip by clip</h2>\n<p>{_PICTURES}</p>",
            _image(metrics_plot(results), "image/svg+xml", "every metric of every clip"),
        ]
        body += [part for result in results for part in _clip(result)]
    body += [part for table in tables if not table.leading for part in _table(table)]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>RIGID Live: evaluation</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _clip(result: ClipResult) -> Iterator[str]:
    """One clip: its curves, then the source, and under it what each candidate made of the same frames."""
    yield f"<h3>{escape(result.name)}</h3>"
    yield _image(curves_plot(result), "image/svg+xml", f"{result.name} over time")
    numbers = "".join(f"<small>frame {number}</small>" for number in result.shown)
    yield f'<div class="strip"><span></span>{numbers}</div>'
    yield _strip("before", result.source)
    for outcome in result.outcomes:
        yield _strip(f"{outcome.candidate.label}: inversion", outcome.inversions)
        yield _strip(f"{outcome.candidate.label}: after", outcome.edits)


def _strip(label: str, pictures: Pictures) -> str:
    """RGB pictures [K, H, W, 3] in a row, as one JPEG."""
    tiles = [cv2.resize(picture, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA) for picture in pictures]
    _, coded = cv2.imencode(".jpg", np.hstack(tiles)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return f'<div class="strip"><span>{escape(label)}</span>{_image(coded.tobytes(), "image/jpeg", label)}</div>'


def _image(content: bytes, kind: str, text: str) -> str:
    return f'<img alt="{escape(text)}" src="data:{kind};base64,{b64encode(content).decode()}">'


def _table(table: Table) -> Iterator[str]:
    yield f"<h2>{escape(table.title)}</h2>"
    if table.note:
        note = re.sub("`(.*?)`", r"<code>\1</code>", escape(table.note))
        yield f"<p>{note}</p>"
    if not table.rows:
        return
    yield '<div class="wide"><table><thead>'
    if table.groups:
        heads = "".join(f'<th colspan="{span}">{escape(name)}</th>' for name, span in table.groups)
        yield f'<tr class="groups">{heads}</tr>'
    numeric = [all(isinstance(row.get(column, 0), int | float) for row in table.rows) for column in table.columns]
    yield f"{_row('th', table.columns, numeric)}</thead><tbody>"
    for row in table.rows:
        yield _row("td", [cell(row.get(column, "")) for column in table.columns], numeric)
    yield "</tbody></table></div>"


def _row(kind: str, texts: Sequence[str], numeric: Sequence[bool]) -> str:
    classes = (' class="n"' if number else "" for number in numeric)
    cells = (f"<{kind}{mark}>{escape(text)}</{kind}>" for mark, text in zip(classes, texts, strict=True))
    return f"<tr>{''.join(cells)}</tr>"
