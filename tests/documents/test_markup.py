"""HTML, EPUB and DOCX in the small: what each element becomes. Made by hand, so that every case is seen alone."""

from __future__ import annotations

import io
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longmamba_mlx.documents.formats.builder import Parsed, Refused, TextBuilder
from longmamba_mlx.documents.formats.markup import add_html
from longmamba_mlx.documents.formats.markup import read as read_html
from longmamba_mlx.documents.formats.packages import read as read_package


def html(text: str) -> str:
    return read_html(io.BytesIO(text.encode())).text


CASES = [
    ("<p>a<p>b", "a\n\nb"),
    ("<p>one\n   two&nbsp;three&amp;&lt;&eacute;", "one two three&<é"),
    ("a<br>b<br/><br>c", "a\nb\n\nc"),
    ("<div>a<div>b</div>c</div>", "a\n\nb\n\nc"),
    ("<b>bold</b><i>er</i> <span>text</span>", "bolder text"),
    ("<script>alert('x<p>')</script><style>p{}</style>a<noscript>b</noscript>", "a\n\nb"),
    ("<head><title>T</title></head><body>a", "a"),
    ("<nav><a>Home</a><nav>x</nav>y</nav>a", "a"),
    ("<pre>def f():\n    return  1\n</pre>b", "def f():\n    return  1\n\nb"),
    ("<ul><li>a<li>b<ul><li>c</ul><li>d</ul>e", "- a\n- b\n  - c\n- d\n\ne"),
    ("<ol start=3><li><p>a</p><p>more</p></li><li>b</ol>", "3. a\n\nmore\n\n4. b"),
    ("<ol start=x><li>a</ol></ul></ol></li>b", "1. a\n\nb"),
    ("<table><tr><th>A<th>B<tr><td>1<td>2</table>c", "A | B\n1 | 2\n\nc"),
    ("<table><tr><td>1</td><td></td><td>3</td></tr></table>", "1 |  | 3"),
    ("<table><tr><td><h1>T</h1><p>para</p></td></tr></table>", "T\n\npara"),
    ("<table><tr><td>" + "x " * 300 + "<td>y</table>", "x " * 299 + "x\n\ny"),
    ("<table><tr><td>a<table><tr><td>b<td>c</table></td><td>d</table>", "a b | c | d"),
    ("<td>stray<tr><td>more</table>", "stray\n\nmore"),
    (
        "<p hidden>no<div hidden>no<div>no</div></div>yes",
        "yes",
    ),
    ("<span style='display: none'>no</span>yes", "yes"),
    ("<img alt='I'>t was<img alt=''> <img alt='a map of the coast'>", "It was [a map of the coast]"),
    ("soft\u00adhy\u200bphen &shy;", "softhyphen"),
    ("10<sup>6</sup> m<sup>2</sup>, the 1<sup>st</sup>, <sup>7</sup>Li", "10^6 m^2, the 1st, 7Li"),
    ("in 1815<a href='#n1'><sup>1</sup></a> and 1816<sup><a href='n.html#2'> 2 </a></sup>.", "in 1815[1] and 1816[2]."),
    (
        "<p><a href='#r1'>1</a>A note.<a href='#r1'>↩︎</a><p><a href='#x'>12 men</a> <a href=x>3</a>",
        "[1] A note.\n\n12 men 3",
    ),
    ("<sup>1<p>2</sup></sup>3", "1\n\n23"),
    ("a <span epub:type='pagebreak' id='p12'>12</span>b<span role='doc-pagebreak'/>c", "a bc"),
    ("<q>so</q> <a href='javascript:x'>link</a>", "“so” link"),
    ("a\x01b<p>\x1b[2J\u202ex" + " words" * 20, "ab\n\nx" + " words" * 20),
    ("<svg><title>no</title><text>no</text></svg>a", "a"),
    ("<p>unclosed <b>tags <i>everywhere<p>next", "unclosed tags everywhere\n\nnext"),
    ("a<!-- c --><![CDATA[x]]>b<?php echo ?>", "ab"),
    ("&#0;&#x110000;&#xD800;a &notanentity;", "\ufffd\ufffd\ufffda ¬anentity;"),
]


@pytest.mark.parametrize(("source", "text"), CASES, ids=[source[:30] for source, _ in CASES])
def test_elements(source: str, text: str) -> None:
    assert html(source) == text


def test_headings_and_anchors() -> None:
    out = TextBuilder()
    page = add_html("<h1 id=x>One <b>two</b></h1><p id=y>a<h3>Deep</h3><a name=z></a>b", out)
    text = out.finish().text
    assert text == "One two\n\na\n\nDeep\n\nb"
    assert page.headings == [(0, "One two", 1), (text.index("Deep"), "Deep", 3)]
    assert page.anchors == {"x": 0, "y": text.index("a"), "z": text.index("b")}


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ('<meta charset="iso-8859-2"><p>čeština'.encode("iso8859_2"), "čeština"),
        (
            '<meta http-equiv="Content-Type" content="text/html; charset=windows-1251">Толстой'.encode("cp1251"),
            "Толстой",
        ),
        ("<meta charset=iso-8859-1>“naïve”".encode("cp1252"), "“naïve”"),
        ('<?xml version="1.0" encoding="shift_jis"?><p>吾輩は猫である'.encode("shift_jis"), "吾輩は猫である"),
        ("<meta charset=latin-1>déjà vu, ça va très bien".encode(), "déjà vu, ça va très bien"),
        ("<meta charset=utf-16>plain", "plain"),
        ("<meta charset=nonsense>é", "é"),
        ("<meta charset=rot13>abc", "abc"),
        ("\ufeff<p>é".encode("utf-16-le"), "é"),
        (b"<p>caf\xe9 au lait, d\xe9j\xe0 vu", "café au lait, déjà vu"),
    ],
)
def test_encodings(data: bytes | str, text: str) -> None:
    data = data.encode() if isinstance(data, str) else data
    assert read_html(io.BytesIO(data)).text == text


def test_nothing_and_nonsense() -> None:
    for data in (b"", b"<p></p><br>", b"<script>x"):
        with pytest.raises(Refused) as caught:
            read_html(io.BytesIO(data))
        assert caught.value.code == "empty"
    with pytest.raises(Refused):
        read_html(io.BytesIO(bytes(range(256)) * 40))


def test_depth_and_size_cost_nothing() -> None:
    assert html("<div>" * 100_000 + "deep" + "</div>" * 100_000) == "deep"
    assert html("<table><tr><td>" * 5000 + "deep") == "deep"
    assert html("<ul><li>" * 5000 + "deep").endswith("- deep")
    assert len(html("<p>word " * 100_000)) > 500_000


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "<p>",
                "</p>",
                "<li>",
                "<ul>",
                "</ul>",
                "<td>",
                "<tr>",
                "</table>",
                "<table>",
                "<h2>",
                "</h2>",
                "<pre>",
                "</pre>",
                "<br>",
                "<nav>",
                "</nav>",
                "a",
                " b\n",
                "&amp;",
                "<",
                "é",
            ]
        ),
        max_size=40,
    ).map("".join)
)
def test_any_tags_in_any_order(source: str) -> None:
    out = TextBuilder()
    page = add_html(source, out)
    try:
        text = out.finish().text
    except Refused:
        return
    assert "\n\n\n" not in text
    for position, label, _ in page.headings:
        assert " ".join(text[position:].split()).removeprefix("- ").startswith(label)


# --------------------------------------------------------------------------------------------------------- EPUB


def packed(files: dict[str, str | bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer


CONTAINER = '<container><rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>'


def epub(manifest: str, spine: str, files: dict[str, str | bytes], **extra: str) -> Parsed:
    package = f"<package><manifest>{manifest}</manifest><spine toc='ncx'>{spine}</spine></package>"
    return read_package(packed({"META-INF/container.xml": CONTAINER, "OPS/book.opf": package, **files, **extra}))


ITEMS = (
    '<item id="a" href="text/one%20two.xhtml" media-type="application/xhtml+xml"/>'
    '<item id="b" href="../b.xhtml" media-type="application/xhtml+xml"/>'
    '<item id="c" href="../../../etc/passwd" media-type="application/xhtml+xml"/>'
    '<item id="pic" href="x.jpg" media-type="image/jpeg"/>'
)
SPINE = "".join(f'<itemref idref="{name}"/>' for name in ("b", "a", "c", "pic", "none", "b"))
PAGES: dict[str, str | bytes] = {
    "OPS/text/one two.xhtml": "<html><p>Before.</p><h1 id='s'>Start</h1><p>One.</p><h2>Sub</h2><p>Two.</p></html>",
    "b.xhtml": "<html><head><title>B</title></head><body><h1>Bee</h1><p>Buzz.</p></body></html>",
}
NCX = (
    "<!DOCTYPE ncx PUBLIC '-//NISO//DTD ncx 2005-1//EN' 'http://www.daisy.org/z3986/2005/ncx-2005-1.dtd'>"
    "<ncx><navMap><navPoint><navLabel><text>The  Bee</text></navLabel><content src='../b.xhtml'/>"
    "<navPoint><navLabel><text>The Start</text></navLabel><content src='text/one%20two.xhtml#s'/></navPoint></navPoint>"
    "<navPoint><navLabel><text>Nowhere</text></navLabel><content src='gone.xhtml'/></navPoint></navMap></ncx>"
)


def test_a_spine_in_order_without_a_contents_file() -> None:
    parsed = epub(ITEMS, SPINE, PAGES)
    assert parsed.text == "Bee\n\nBuzz.\n\nBefore.\n\nStart\n\nOne.\n\nSub\n\nTwo."
    assert [(mark.label, mark.level) for mark in parsed.marks] == [("Bee", 1), ("Start", 1), ("Sub", 2)]


def test_chapters_of_the_ncx() -> None:
    item = '<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>'
    parsed = epub(ITEMS + item, SPINE, {**PAGES, "OPS/toc.ncx": NCX})
    assert [(mark.label, mark.level) for mark in parsed.marks] == [("The Bee", 1), ("The Start", 2)]
    assert [parsed.text[mark.start :][:5] for mark in parsed.marks] == ["Bee\n\n", "Start"]


def test_chapters_of_the_navigation_file() -> None:
    nav = (
        "<html xmlns:epub='x'><body><nav epub:type='landmarks'><ol><li><a href='x'>No</a></li></ol></nav>"
        "<nav epub:type='toc'><h1>Contents</h1><ol><li><a href='../b.xhtml'>B</a><ol><li>"
        "<a href='text/one%20two.xhtml'>A <i>1</i></a></li></ol></li></ol></nav></body></html>"
    )
    item = '<item id="n" properties="nav" href="nav.xhtml" media-type="application/xhtml+xml"/>'
    parsed = epub(item + ITEMS, '<itemref idref="n"/>' + SPINE, {**PAGES, "OPS/nav.xhtml": nav})
    assert [(mark.label, mark.level) for mark in parsed.marks] == [("B", 1), ("A 1", 2)]
    assert "Contents" not in parsed.text


def test_copy_protection_and_scrambled_fonts() -> None:
    for algorithm, target, allowed in (
        ("http://www.w3.org/2001/04/xmlenc#aes128-cbc", "b.xhtml", False),
        ("http://www.w3.org/2001/04/xmlenc#aes128-cbc", "OPS/x.jpg", True),
        ("http://www.idpf.org/2008/embedding", "b.xhtml", True),
    ):
        encryption = (
            f"<encryption><EncryptedData><EncryptionMethod Algorithm='{algorithm}'/><CipherData>"
            f"<CipherReference URI='{target}'/></CipherData></EncryptedData></encryption>"
        )
        files = {**PAGES, "META-INF/encryption.xml": encryption}
        if allowed:
            assert epub(ITEMS, SPINE, files).text.startswith("Bee")
        else:
            with pytest.raises(Refused) as caught:
                epub(ITEMS, SPINE, files)
            assert caught.value.code == "protected"


def test_broken_books() -> None:
    for files, code in (
        ({"META-INF/container.xml": "<container"}, "damaged"),
        ({"META-INF/container.xml": CONTAINER}, "damaged"),
        ({"META-INF/container.xml": CONTAINER, "OPS/book.opf": "<package/>"}, "empty"),
        ({"META-INF/container.xml": CONTAINER, "OPS/book.opf": "not xml"}, "damaged"),
    ):
        with pytest.raises(Refused) as caught:
            read_package(packed(files))
        assert caught.value.code == code
    parsed = epub(ITEMS + '<item id="ncx" href="toc.ncx"/>', SPINE, {**PAGES, "OPS/toc.ncx": "<ncx"})
    assert parsed.marks[0].label == "Bee"


# --------------------------------------------------------------------------------------------------------- DOCX


def docx(body: str, **parts: str) -> Parsed:
    files = {"[Content_Types].xml": "<Types/>", "word/document.xml": f"<document><body>{body}</body></document>"}
    return read_package(packed({**files, **{f"word/{name}.xml": text for name, text in parts.items()}}))


def p(text: str, properties: str = "") -> str:
    return f"<p><pPr>{properties}</pPr><r><t>{text}</t></r></p>"


STYLES = (
    "<styles><style styleId='H1'><name val='heading 1'/></style><style styleId='Mine'><name val='My heading'/>"
    "<basedOn val='H1'/></style><style styleId='T1'><name val='toc 1'/></style><style styleId='L'><name val='Clause'/>"
    "<pPr><outlineLvl val='1'/><numPr><numId val='1'/></numPr></pPr></style><style styleId='Loop'><name val='x'/>"
    "<basedOn val='Loop'/></style></styles>"
)
NUMBERING = (
    "<numbering><abstractNum abstractNumId='0'><lvl ilvl='0'><start val='1'/><numFmt val='decimal'/>"
    "<lvlText val='%1.'/></lvl><lvl ilvl='1'><numFmt val='decimal'/><lvlText val='%1.%2'/></lvl>"
    "<lvl ilvl='2'><numFmt val='lowerLetter'/><lvlText val='(%3)'/></lvl>"
    "<lvl ilvl='3'><numFmt val='bullet'/><lvlText val='o'/></lvl></abstractNum>"
    "<num numId='1'><abstractNumId val='0'/></num><num numId='2'><abstractNumId val='0'/><lvlOverride ilvl='0'>"
    "<startOverride val='1'/></lvlOverride></num></numbering>"
)


def test_runs_tabs_and_breaks() -> None:
    body = "<p><r><t>a</t><tab/><t>b</t><br/><t>c</t><noBreakHyphen/><t>d</t><softHyphen/></r></p><p/>" + p(" ")
    assert docx(body + p("end")).text == "a\tb\nc-d\n\nend"


def test_what_is_not_shown_is_not_read() -> None:
    body = (
        "<p><del><r><delText>gone</delText><t>gone</t></r></del><ins><r><t>new</t></r></ins><r><rPr><vanish/></rPr>"
        "<t>hidden</t></r><r><rPr><vanish val='0'/></rPr><t> shown</t></r><r><instrText>PAGE</instrText></r>"
        "<AlternateContent><Choice><r><t> once</t></r></Choice><Fallback><r><t> twice</t></r></Fallback>"
        "</AlternateContent><moveFrom><r><t>moved</t></r></moveFrom></p>"
    )
    assert docx(body).text == "new shown once"


def test_headings_by_style_and_contents_left_out() -> None:
    body = (
        p("Contents ... 1", "<pStyle val='T1'/>")
        + p("One", "<pStyle val='H1'/>")
        + p("text", "<pStyle val='Loop'/>")
        + p("Two", "<pStyle val='Mine'/>")
        + p("Three", "<outlineLvl val='2'/>")
        + p("body", "<outlineLvl val='9'/>")
    )
    parsed = docx(body, styles=STYLES)
    assert parsed.text == "One\n\ntext\n\nTwo\n\nThree\n\nbody"
    assert [(mark.label, mark.level) for mark in parsed.marks] == [("One", 1), ("Two", 1), ("Three", 3)]


def test_numbers_that_word_computes() -> None:
    def item(text: str, level: int, number: int = 1) -> str:
        return p(text, f"<numPr><ilvl val='{level}'/><numId val='{number}'/></numPr>")

    levels = [("a", 0), ("b", 1), ("c", 1), ("d", 2), ("e", 2), ("f", 0), ("g", 1), ("h", 3)]
    body = "".join(item(text, level) for text, level in levels) + item("i", 0, 2) + item("j", 0, 0) + item("k", 0, 7)
    lines = "1. a\n1.1 b\n1.2 c\n(a) d\n(b) e\n2. f\n2.1 g\n- h\n1. i"
    assert docx(body, numbering=NUMBERING).text == f"{lines}\n\nj\n\nk"
    clause = docx(p("Term", "<pStyle val='L'/>") + p("Fee", "<pStyle val='L'/>"), numbering=NUMBERING, styles=STYLES)
    assert clause.text == "1. Term\n\n2. Fee" and [mark.label for mark in clause.marks] == ["1. Term", "2. Fee"]


def test_tables_text_boxes_and_notes() -> None:
    table = f"<tbl><tr><tc>{p('a')}</tc><tc>{p('b')}</tc></tr><tr><tc>{p('c')}{p('d')}</tc><tc/></tr></tbl>"
    box = f"<p><r><t>outer</t></r><r><pict><txbxContent>{p('inner')}</txbxContent></pict></r><r><t> end</t></r></p>"
    notes = (
        "<footnotes><footnote id='0' type='separator'><p><r><t>-</t></r></p></footnote>"
        "<footnote id='1'><p><r><t> See </t></r><r><t>there.</t></r></p></footnote></footnotes>"
    )
    cited = "<p><r><t>fact</t></r><r><footnoteReference id='1'/></r><r><footnoteReference id='0'/></r></p>"
    parsed = docx(table + box + cited + p("after"), footnotes=notes)
    assert parsed.text == "a | b\n\nc\n\nd\n\ninner\n\nouter end\n\nfact[1]\n\n[1] See there.\n\nafter"


def test_broken_word_files() -> None:
    for body, code in (("", "empty"), ("<p>", "damaged"), ("<p>" * 600, "bomb")):
        with pytest.raises(Refused) as caught:
            docx(body)
        assert caught.value.code == code
