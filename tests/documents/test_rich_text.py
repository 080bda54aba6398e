"""RTF, OpenDocument and FictionBook: text, tables, notes, comments and page headers, each in its place."""

from __future__ import annotations

import io
import zipfile

import pytest

from longmamba_mlx.documents import Document, from_bytes
from longmamba_mlx.errors import DocumentError

FACT = "The access code of Varnok is 48213."


TABLE = "Name | Code\nVarnok | 48213"
HEADED = "[Header] Case file\n\nText.\n\n[Footer] Secret"


def rtf(body: str) -> str:
    head = (
        r"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0\fnil\fcharset0 Times;}{\f1\fnil\fcharset204 Arial Cyr;}}"
        r"{\stylesheet{\s0 Normal;}{\s1\outlinelevel0 heading 1;}}{\info{\title Hidden title}}"
    )
    return from_bytes(f"{head}{body}}}".encode("cp1252"), title="a", source="s").text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (rf"\pard {FACT}\par", FACT),
        (r"caf\'e9, \'80 5, \u8364? and \u-10179?\u-8704? \lquote a\rquote\~b", "café, € 5, € and 😀 ‘a’ b"),
        ("raw \xe9", "raw é"),
        (r"{\f1\'cf\'f0\'e8\'e2\'e5\'f2} and {\f0 back}", "Привет and back"),
        (r"{\v hidden}shown {\deleted gone}{\b bold}\line new line", "shown bold\nnew line"),
        (r"A word{\footnote\chftn the note.} goes on.\par Next.", "A word[1] goes on.\n\n[1] the note.\n\nNext."),
        (r"{\header Case file\par}{\footer 7}Text.{\footer Secret\par}", HEADED),
        (r"Text.{\*\atnauthor Ann}{\*\annotation{\*\atndate 1}Check this}\par", "Text.\n\n[Comment by Ann] Check this"),
        (r"\trowd\intbl Name\cell Code\cell\row\intbl Varnok\cell 48213\cell\row\pard End", f"{TABLE}\n\nEnd"),
        (r"See {\field{\*\fldinst HYPERLINK \"http://x\"}{\fldrslt here}}{\*\unknown lost}.", "See here."),
        (r"{\pict\wmetafile8 ffaa00}{\*\shpinst{\sp{\sn a}{\sv b}}{\shptxt In a box\par}}Out", "In a box\n\nOut"),
        (r"{\pict\bin5 }}}\\}Out", "Out"),
        (r"{\listtext\tab 1.\tab}One\par}}}}}after the end", "1.\tOne"),
    ],
)  # fmt: skip
def test_rtf(body: str, text: str) -> None:
    assert rtf(body).strip() == text


def test_rtf_headings() -> None:
    data = rb"{\rtf1{\stylesheet{\s1\outlinelevel0 h;}}\pard\s1 One\par\pard text\par\pard\outlinelevel1 Two\par}"
    document = from_bytes(data, title="a", source="s")
    assert [(place.label, place.level) for place in document.places] == [("One", 1), ("Two", 2)]


NAMES = "office text table style draw dc svg".split()
ROOT = " ".join(f'xmlns:{name}="urn:x:{name}"' for name in NAMES)


def content(body: str, before: str = "") -> str:
    text = f"<office:body><office:text>{body}</office:text></office:body>"
    return f"<office:document {ROOT}>{before}{text}</office:document>"


def packed(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def odt(body: str, before: str = "", styles: str = "") -> Document:
    """The document of a flat file, after it was compared with that of a package."""
    flat = from_bytes(content(body, before).encode(), title="a.fodt", source="s")
    files = {"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content(body, before)}
    if styles:
        files["styles.xml"] = styles
        return from_bytes(packed(files), title="a.odt", source="s")
    assert from_bytes(packed(files), title="a.odt", source="s").text == flat.text
    return flat


LISTS = (
    '<text:list-style style:name="N"><text:list-level-style-number text:level="1" style:num-suffix="." '
    'style:num-format="1"/><text:list-level-style-number text:level="2" text:display-levels="2" style:num-suffix=")" '
    'style:num-format="1"/></text:list-style>'
)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (f"<text:p>{FACT}</text:p>", FACT),
        (
            "<text:p>a<text:s text:c='3'/>b<text:tab/>c<text:line-break/>d <text:span>e\n f</text:span> g</text:p>",
            "a   b\tc\nd e f g",
        ),
        (
            "<text:p>A<text:note><text:note-citation>1</text:note-citation><text:note-body><text:p>the note</text:p>"
            "</text:note-body></text:note> word.</text:p><text:p>B</text:p>",
            "A[1] word.\n\n[1] the note\n\nB",
        ),
        (
            "<text:p>A<office:annotation><dc:creator>Ann</dc:creator><dc:date>2024</dc:date><text:p>check</text:p>"
            "</office:annotation> b</text:p>",
            "A b\n\n[Comment by Ann] check",
        ),
        (
            "<text:tracked-changes><text:p>gone</text:p></text:tracked-changes><text:p>kept<text:change/></text:p>",
            "kept",
        ),
        (
            "<table:table><table:table-row><table:table-cell><text:p>Name</text:p></table:table-cell><table:table-cell>"
            "<text:p>Code</text:p></table:table-cell></table:table-row><table:table-row><table:table-cell><text:p>Varnok"
            "</text:p></table:table-cell><table:table-cell><text:p>48213</text:p></table:table-cell></table:table-row>"
            "</table:table>",
            TABLE,
        ),
        (
            "<text:list text:style-name='N'><text:list-item><text:p>a</text:p><text:list><text:list-item><text:p>b"
            "</text:p></text:list-item></text:list></text:list-item><text:list-item><text:p>c</text:p><text:p>d</text:p>"
            "</text:list-item></text:list><text:list><text:list-item><text:p>e</text:p></text:list-item></text:list>",
            "1. a\n1.1) b\n2. c\n\nd\n\n- e",
        ),
        (
            "<text:p>before<draw:frame><draw:text-box><text:p>in a box</text:p></draw:text-box><svg:title>a ship"
            "</svg:title></draw:frame> after</text:p>",
            "before\nin a box\n[a ship] after",
        ),
    ],
)  # fmt: skip
def test_opendocument(body: str, text: str) -> None:
    assert odt(body, LISTS).text == text


def test_opendocument_headings_and_page_headers() -> None:
    level = '<text:outline-level-style text:level="1" style:num-format="I"/>'
    headings = (
        "<text:h text:outline-level='1'>One</text:h><text:p>a</text:p><text:h text:outline-level='2'>Two</text:h>"
    )
    document = odt(headings, f"<text:outline-style style:name='O'>{level}</text:outline-style>")
    assert [(place.label, place.level) for place in document.places] == [("I One", 1), ("Two", 2)]
    pages = (
        f"<office:document-styles {ROOT}><style:master-page><style:header><text:p>Case file</text:p></style:header>"
        "<style:footer><text:p>Page 1</text:p></style:footer><style:header-left><text:p>Other side</text:p>"
        "</style:header-left><style:footer-first><text:p>7</text:p></style:footer-first></style:master-page>"
        "</office:document-styles>"
    )  # fmt: skip
    assert (
        odt("<text:p>a</text:p>", styles=pages).text
        == "[Header] Case file\n\n[Header] Other side\n\na\n\n[Footer] Page 1"
    )


def test_opendocument_that_is_locked_or_damaged() -> None:
    kind = {"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": content("<text:p>a</text:p>")}
    with pytest.raises(DocumentError, match="encrypted"):
        from_bytes(packed({**kind, "META-INF/manifest.xml": "<m><encryption-data/></m>"}), title="a", source="s")
    for broken in ("<office:document", content("<text:p>a")):
        with pytest.raises(DocumentError, match="damaged"):
            from_bytes(packed({**kind, "content.xml": broken}), title="a", source="s")


BOOK = """<?xml version="1.0" encoding="windows-1251"?>
<FictionBook xmlns="http://www.gribuser.ru/xml/fictionbook/2.0" xmlns:l="http://www.w3.org/1999/xlink"><description>
<title-info><genre>sf</genre><author><first-name>Анна</first-name> <last-name>Ли</last-name></author>
<book-title>Книга</book-title></title-info><document-info><author><nickname>scan</nickname></author></document-info>
</description><body><section><title><p>One</p><p>Two</p></title><epigraph><p>said</p><text-author>N</text-author></epigraph>
<p>The access <emphasis>code</emphasis> of Varnok is 48213<a l:href="#n" type="note">1</a>.</p>
<section><title><p>Deep</p></title><poem><stanza><v>a</v><v>b</v></stanza></poem>
<table><tr><th>x</th><td>y</td></tr></table></section></section></body>
<body name="notes"><section id="n"><title><p>1</p></title><p>a note</p></section></body><binary>AAAA</binary>
</FictionBook>"""


def test_fiction_book() -> None:
    data = BOOK.encode("cp1251")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("book.fb2", data)
    for given in (data, buffer.getvalue()):
        document = from_bytes(given, title="a", source="s")
        assert document.text == (
            "Анна Ли\n\nКнига\n\nOne Two\n\nsaid\n\nN\n\n"
            "The access code of Varnok is 48213[1].\n\nDeep\n\na\nb\n\nx | y\n\n1\n\na note"
        )
        assert [(place.label, place.level) for place in document.places] == [("One Two", 1), ("Deep", 2), ("1", 1)]
