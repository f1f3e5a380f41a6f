import base64
import hashlib
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.errors import ConfigError
from mynah.sim.load import markup
from mynah.sim.load.markup import MAX_TEXT, Cell, code, document, facts, replace_file, row, table, told
from mynah.sim.load.words import Words, same

hostile = st.text(st.characters() | st.sampled_from("<>&\"'\x00\x1b\u202e\ufffe\ud800"), max_size=80)


@given(hostile)
def test_whatever_somebody_wrote_stays_text(text: str) -> None:
    page = document(text, [told(text), code(text), row([text, text]), facts([(same(text), text)])])
    root = ET.fromstring(page.encode("utf-8"))
    allowed = {"html", "head", "meta", "title", "style", "body", "input", "label", "main"}
    assert {element.tag for element in root.iter()} <= allowed | {
        "pre",
        "code",
        "tr",
        "th",
        "td",
        "dl",
        "dt",
        "dd",
    }
    assert not any(name.startswith("on") for element in root.iter() for name in element.attrib)


def test_the_policy_allows_the_style_and_nothing_else() -> None:
    page = document("x", [])
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}';" in page
    assert not re.search(r"@import|url\(|https?:", style)


def test_both_languages_are_there_and_one_is_marked() -> None:
    assert told(Words("a", "b")) == '<span class="en">a</span><span class="zh" lang="zh">b</span>'
    assert told("a") == "a"
    assert "#zh:checked ~ main .en" in document("x", [])


def test_long_texts_are_cut() -> None:
    assert len(told("x" * 1_000_000)) <= MAX_TEXT + 1
    assert len(code("x" * 1_000_000)) < markup.MAX_CODE + 100


def test_code_keeps_its_lines_and_indents() -> None:
    assert code("a:\n  b: <1>") == "<pre><code>a:\n  b: &lt;1&gt;</code></pre>"


def test_a_table_names_its_rows_and_columns() -> None:
    made = table(same("t"), [same("a"), same("b")], [row(["x", Cell("<b>1</b>")], 1)], 1)
    assert '<th scope="col">a</th><th scope="col" class="n">b</th>' in made
    assert '<th scope="row" class="short">x</th><td class="n"><b>1</b></td>' in made


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.html"
    replace_file(path, b"old")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert [one.name for one in path.parent.iterdir()] == ["a.html"]


def test_a_folder_that_is_none_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot write .*--report"):
        replace_file(tmp_path / "file" / "a.html", b"")
