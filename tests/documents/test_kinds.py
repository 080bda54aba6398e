"""What a file is, told by content and name: words are not taken for signatures, and pages are found behind comments."""

from __future__ import annotations

import pytest

from longmamba_mlx.documents import from_bytes
from longmamba_mlx.documents.kinds import known_format
from longmamba_mlx.errors import DocumentError

FACT = "The access code of Varnok is 48213."


@pytest.mark.parametrize(
    "words",
    [
        "THE NEW WAVE\n\nNotes on cinema.",  # as a sound file has at byte 8
        "The ftyp box comes first.",  # as a film has at byte 4
        "GGUF is a format of models.",
        "RIFF files hold AVI  and WAVE chunks.",
        "PAR1 stands at both ends of a Parquet table.",
        "GIF89a words and GIF87a words.",
        "BZh91AY&SY is how bzip2 begins.",
        "AT&TFORM is DjVu.",
        "ID3 tags stand in front.",
        "ITSF and bplist00 are signatures.",
        "%PDF-1.7 is how they begin.",
        "%!PS is PostScript.",
        "x" * 60 + "BOOKMOBI " + "x" * 200 + "ustar",
    ],
)
def test_words_that_files_begin_with(words: str) -> None:
    text = f"{words}\n\n{FACT}"
    assert from_bytes(text.encode(), title="a.txt", source="s").text == text


@pytest.mark.parametrize(
    ("begins", "name", "is_pdf"),
    [
        ("%PD1.7", "a.pdf", True), ("%PDF-1.N", "a.pdf", True), ("%PDF-1.N", "stdin", True), ("\n\n", "a.pdf", True),
        ("%PD1.7", "a.txt", False), ("In a PDF", "a.txt", False),
    ],
)  # fmt: skip
def test_a_pdf_with_a_damaged_first_line_is_no_text(begins: str, name: str, is_pdf: bool) -> None:
    data = f"{begins}\n1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n{FACT}".encode()
    found = known_format(data, name)
    assert (found is not None and found.name == "a PDF") is is_pdf
    if is_pdf:
        with pytest.raises(DocumentError, match="damaged"):
            from_bytes(data, title=name, source="s")
    assert known_format(f"{FACT} Page 1 0 obj".encode(), "a.pdf") is None


def test_a_package_with_something_in_front_is_no_text() -> None:
    data = b"JUNK" * 1000 + b"PK\x03\x04" + bytes(30)
    for name, wanted in (("a.docx", True), ("a.epub", True), ("a.odt", True), ("a.txt", False)):
        found = known_format(data, name)
        assert (found is not None and found.reader == "packages") is wanted, name
    assert known_format(f"{FACT} A ZIP begins with PK.".encode(), "a.docx") is None


@pytest.mark.parametrize("text", ["Hello\x00World. ", "a\x00b\x00c\n" + FACT * 3, "N\bNA\bAM\bME\bE and _\bu_\bs. "])
def test_stray_control_bytes_refuse_no_text(text: str) -> None:
    found = from_bytes((text + FACT).encode(), title="a.txt", source="s").text
    assert FACT in found and "\x00" not in found and "\b" not in found


PAGE = "<p>The access code of <b>Varnok</b> is 48213.</p>"
PAGES = [
    f"<!-- {'x' * 5000} -->{PAGE}",
    f"<!-- a --> <!-- {'b ' * 9000} -->\n<!doctype html>{PAGE}",
    f"<meta charset=utf-8><title>x</title>{PAGE}",
    f"<title>x</title>{PAGE}",
    PAGE,
    f"<?xml version='1.0'?><!-- a --><html xmlns='http://www.w3.org/1999/xhtml'>{PAGE}</html>",
    f"\ufeff\n\n<HTML>{PAGE}",
    f"<div class=a>{PAGE}</div>",
    f"<table><tr><td>{PAGE}</table>",
]


@pytest.mark.parametrize("page", PAGES, ids=[page[:20] for page in PAGES])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_web_pages(page: str, encoding: str) -> None:
    for name in ("stdin", "a.txt", "a.html"):
        assert from_bytes(page.encode(encoding), title=name, source="s").text == FACT


def test_the_name_tells_where_the_content_does_not() -> None:
    loose = f"{FACT} <b>Bold</b> &amp; more"
    assert from_bytes(loose.encode(), title="a.html", source="s").text == f"{FACT} Bold & more"
    assert from_bytes(loose.encode(), title="a.txt", source="s").text == loose
    readme = '<p align="center">\n  <img src="x.png">\n</p>\n\n# Title\n\nSome *text*.'
    for name in ("README.md", "stdin"):
        assert from_bytes(readme.encode(), title=name, source="s").text == readme
    memo = f"From: Bob\nTo: Alice\n\n{FACT}"
    assert known_format(memo.encode(), "memo.txt") is None
    assert known_format(memo.encode(), "memo.eml") is not None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "a sound file"),
        (b"GIF89a\x01\x00\x01\x00", "a GIF picture"),
        (b"PAR1\x15\x00", "a Parquet table"),
        (b"Book name".ljust(60, b"\x00") + b"BOOKMOBI\x00\x00", "a Kindle"),
        (b"%!PS-Adobe-3.0\n%%Title: x\n", "a PostScript file"),
    ],
)
def test_binary_files_are_named(data: bytes, words: str) -> None:
    with pytest.raises(DocumentError, match=words) as caught:
        from_bytes(data, title="a.txt", source="s")
    assert caught.value.hint
