"""DOCX: what stands beside the text is read and marked, and what was deleted is not."""

from __future__ import annotations

import io
import zipfile

from longmamba_mlx.documents.formats.builder import Parsed
from longmamba_mlx.documents.formats.packages import read

W = 'xmlns:w="urn:w" xmlns:r="urn:r"'


def p(text: str, properties: str = "") -> str:
    return f"<w:p>{f'<w:pPr>{properties}</w:pPr>' if properties else ''}<w:r><w:t>{text}</w:t></w:r></w:p>"


def word(body: str, **parts: str | bytes) -> Parsed:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("word/document.xml", f"<w:document {W}><w:body>{body}</w:body></w:document>")
        for name, content in parts.items():
            archive.writestr(f"word/{name}", content)
    buffer.seek(0)
    return read(buffer)


DELETED = "<w:rPr><w:del w:id='1'/></w:rPr>"


def test_headers_and_footers_are_read_once() -> None:
    parts = {
        "header1.xml": f"<w:hdr {W}>{p('Case file')}{p('48213')}</w:hdr>",
        "header2.xml": f"<w:hdr {W}>{p('Case file')}{p('48213')}</w:hdr>",
        "footer1.xml": f"<w:ftr {W}>{p('7')}</w:ftr>",
        "footer2.xml": f"<w:ftr {W}><w:p><w:r><w:t>A</w:t><w:tab/><w:t>B</w:t></w:r></w:p></w:ftr>",
    }
    assert word(p("Text."), **parts).text == "[Header] Case file 48213\n\nText.\n\n[Footer] A B"


def test_comments_and_notes_follow_their_paragraph() -> None:
    body = (
        "<w:p><w:r><w:t>A</w:t><w:footnoteReference w:id='2'/><w:commentReference w:id='0'/></w:r></w:p>"
        "<w:p><w:r><w:commentReference w:id='1'/></w:r></w:p>"
    )
    first = f"<w:comment w:id='0' w:author='Ann'>{p('one')}{p('two')}</w:comment>"
    comments = f"<w:comments {W}>{first}<w:comment w:id='1'>{p('last')}</w:comment></w:comments>"
    notes = f"<w:footnotes {W}><w:footnote w:id='2'>{p('a note')}<w:del>{p('gone')}</w:del></w:footnote></w:footnotes>"
    text = word(body, **{"comments.xml": comments, "footnotes.xml": notes}).text
    assert text == "A[1]\n\n[1] a note\n\n[Comment by Ann] one two\n\n[Comment] last"


def test_a_deleted_paragraph_mark_joins() -> None:
    assert word(p("The code ", DELETED) + p("is ", DELETED) + p("5.") + p("Next")).text == "The code is 5.\n\nNext"
    assert word(p("first") + p("last", DELETED)).text == "first\n\nlast"
    row = f"<w:tbl><w:tr><w:tc>{p('a', DELETED)}</w:tc><w:tc>{p('b')}</w:tc></w:tr></w:tbl>"
    assert word(row).text == "a | b"


def test_embedded_files_and_symbols() -> None:
    rels = (
        "<Relationships><Relationship Id='h' Target='chunk.htm'/><Relationship Id='r' Target='/word/chunk.rtf'/>"
        "<Relationship Id='t' Target='chunk.txt'/><Relationship Id='x' Target='http://x/y' TargetMode='External'/>"
        "<Relationship Id='p' Target='chunk.pdf'/></Relationships>"
    )
    body = "".join(f"<w:altChunk r:id='{key}'/>" for key in "hrtxp") + p("End")
    files: dict[str, str | bytes] = {
        "_rels/document.xml.rels": rels,
        "chunk.htm": "<html><h1>Title</h1><p>Web</p></html>",
        "chunk.rtf": r"{\rtf1 Rich}",
        "chunk.txt": "caf\xe9".encode("cp1252"),
        "chunk.pdf": b"%PDF-1.4\n",
    }
    parsed = word(body, **files)
    assert parsed.text == "Title\n\nWeb\n\nRich\n\ncafé\n\nEnd"
    assert [mark.label for mark in parsed.marks] == ["Title"]
    assert parsed.notes == (
        "Read as windows-1252; --encoding NAME reads it otherwise.",
        "A PDF within the document was not read.",
    )
    symbols = "<w:p><w:r><w:sym w:font='Wingdings' w:char='F0FE'/><w:t>done</w:t><w:sym w:char='F001'/></w:r></w:p>"
    assert word(symbols).text == "☑done"
