"""HTML of the load test's pages: one file each, without script, network or outside parts, in English and Chinese.

Both languages are in the page, and a switch of radio buttons and CSS hides one. A content security policy in the page
forbids everything but its own style, so that nothing a server put into an error message can do anything.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from mynah.errors import ConfigError
from mynah.sim.load.words import Words, same
from mynah.sim.waterfall_svg import escaped

MAX_TEXT: Final = 2000
"""Characters of one foreign text, such as an error message; what follows is cut off, as nobody reads it in a table."""

MAX_CODE: Final = 20_000
"""Characters of a command or a scenario."""


def told(text: Words | str) -> str:
    """Return text in both languages, of which the page shows one; foreign text is escaped and cut."""
    both = same(text) if isinstance(text, str) else text
    if both.en == both.zh:
        return _plain(both.en)
    return f'<span class="en">{_plain(both.en)}</span><span class="zh" lang="zh">{_plain(both.zh)}</span>'


def paragraph(text: Words | str, style: str = "") -> str:
    """Return a paragraph."""
    return f"<p{_class(style)}>{told(text)}</p>"


def heading(text: Words, level: int = 2) -> str:
    """Return a heading."""
    return f"<h{level}>{told(text)}</h{level}>"


def code(text: str) -> str:
    """Return lines to be copied, as they are."""
    lines = text[:MAX_CODE].splitlines()
    return "<pre><code>" + "\n".join(_indented(one) for one in lines) + "</code></pre>"


def listed(texts: Iterable[Words | str]) -> str:
    """Return a list of points, or nothing for none."""
    items = "".join(f"<li>{told(one)}</li>" for one in texts)
    return f"<ul>{items}</ul>" if items else ""


MAX_UNBROKEN: Final = 120
"""Characters of markup of a row's name that is kept on one line: both languages of a short one."""


class Cell(str):
    """Markup of a table's cell that is there already; all else is text."""

    __slots__ = ()


def table(caption: Words, head: Sequence[Words], rows: Iterable[str], texts: int = 0) -> str:
    """Return a table that scrolls sideways where it is too wide. ``texts`` columns hold text, the others numbers."""
    titles = "".join(
        f'<th scope="col"{_class("n" if at >= texts else "")}>{told(one)}</th>' for at, one in enumerate(head)
    )
    return (
        f'<div class="wide" tabindex="0" role="group"><table><caption><div>{told(caption)}</div></caption>'
        f"<thead><tr>{titles}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def row(cells: Sequence[Words | str], texts: int = 0, style: str = "") -> str:
    """Return a row of a table. The first ``texts`` cells hold text, the others numbers; the first one names the row."""
    parts = []
    for at, cell in enumerate(cells):
        inside = str(cell) if isinstance(cell, Cell) else told(cell)
        if at == 0:
            name = "short" if len(inside) <= MAX_UNBROKEN else ""
            parts.append(f'<th scope="row"{_class(name)}>{inside}</th>')
        else:
            parts.append(f"<td{_class('n' if at >= texts else '')}>{inside}</td>")
    return f"<tr{_class(style)}>{''.join(parts)}</tr>"


def why(text: str, columns: int) -> str:
    """Return a row below another, which says why something is as it is there."""
    return f'<tr class="why"><td colspan="{columns}"><div>{told(text)}</div></td></tr>'


def facts(rows: Iterable[tuple[Words, Words | str]]) -> str:
    """Return names and what they are."""
    inside = "".join(f"<dt>{told(name)}</dt><dd>{told(value)}</dd>" for name, value in rows)
    return f'<dl class="facts">{inside}</dl>' if inside else ""


def tiles(rows: Iterable[tuple[Words, str]]) -> str:
    """Return a few figures to be seen first."""
    inside = "".join(f"<div><dt>{told(name)}</dt><dd>{told(value)}</dd></div>" for name, value in rows)
    return f'<dl class="tiles">{inside}</dl>' if inside else ""


def folded(summary: Words, inside: str) -> str:
    """Return what is seen after a click."""
    return f"<details><summary>{told(summary)}</summary>{inside}</details>"


def figure(number: int, title: Words, about: Words | None, text: Words, svg: str) -> str:
    """Return a chart with its title; ``text`` is what it shows, for who cannot see it. The SVG names `label_id`."""
    hint = f'<p class="soft">{told(about)}</p>' if about else ""
    return (
        f'<figure><figcaption><h3 id="c{number}">{told(title)}</h3>{hint}</figcaption>{svg}'
        f'<p class="unseen" id="c{number}t">{told(text)}</p></figure>'
    )


def label_id(number: int) -> str:
    """Return what the SVG of a figure is labelled by."""
    return f"c{number} c{number}t"


def document(title: str, body: Iterable[str]) -> str:
    """Return a whole page. It is well-formed XML as well."""
    style = _style()
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{allowed}'; base-uri 'none'; form-action 'none'"
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8"/>',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}"/>',
            '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
            '<meta name="referrer" content="no-referrer"/>',
            f"<title>{_plain(title)}</title><style>{style}</style></head><body>",
            '<input class="switch" type="radio" name="language" id="en" checked="checked"/>'
            '<label for="en">English</label>',
            '<input class="switch" type="radio" name="language" id="zh"/><label for="zh" lang="zh">中文</label>',
            "<main>",
            *body,
            "</main></body></html>\n",
        )
    )


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one. Raises ConfigError when it cannot be written."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_bytes(content)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror or error}. Give a folder you may write to with --report"
        ) from error


def encoded(data: msgspec.Struct) -> bytes:
    """Return data as JSON. Text that is no text gets question marks.

    A command line may hold bytes that are no UTF-8. They must not cost the measurements of an hour.
    """
    try:
        return msgspec.json.encode(data)
    except UnicodeEncodeError:
        return msgspec.json.encode(_legal(msgspec.to_builtins(data)))


def _legal(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_legal(name): _legal(inside) for name, inside in value.items()}
    return [_legal(inside) for inside in value] if isinstance(value, list | tuple) else value


def _plain(text: str) -> str:
    return escaped(text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…")


def _indented(text: str) -> str:
    inside = text.lstrip(" ")
    return " " * (len(text) - len(inside)) + escaped(inside)


def _class(style: str) -> str:
    return f' class="{style}"' if style else ""


@functools.cache
def _style() -> str:
    return Path(__file__).with_name("page.css").read_text("utf-8")
