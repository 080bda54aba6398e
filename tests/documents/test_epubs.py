"""R16: twenty books in the shapes that publishers' and libraries' EPUBs have are read, whole and in order."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import pytest

from longmamba_mlx.documents import Document, from_bytes

Files = dict[str, bytes]
ONE, TWO = "The keeper climbed the stairs.", "A ship’s lamp burned — far out."
OPS = ' xmlns:epub="http://www.idpf.org/2007/ops"'


def page(title: str, text: str, head: str = "", extra: str = "") -> str:
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE html>\n<html xmlns="http://www.w3.org/1999/xhtml"{OPS}>'
        f"<head><title>{title}</title>{head}</head><body><h1>{title}</h1><p>{text}</p>{extra}</body></html>"
    )


def package(items: str, spine: str, version: str = "3.0", toc: str = "", more: str = "") -> str:
    return (
        f'<?xml version="1.0" encoding="utf-8"?><package xmlns="http://www.idpf.org/2007/opf" version="{version}">'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Book</dc:title></metadata>'
        f"<manifest>{items}</manifest><spine{toc}>{spine}</spine>{more}</package>"
    )


def item(name: str, href: str, kind: str = "application/xhtml+xml", more: str = "") -> str:
    return f'<item id="{name}" href="{href}" media-type="{kind}"{more}/>'


def refs(*names: str) -> str:
    return "".join(f'<itemref idref="{name}"/>' for name in names)


def container(path: str = "OEBPS/content.opf") -> bytes:
    roots = f'<rootfiles><rootfile full-path="{path}" media-type="application/oebps-package+xml"/></rootfiles>'
    namespace = 'xmlns="urn:oasis:names:tc:opendocument:xmlns:container"'
    return f'<?xml version="1.0"?><container version="1.0" {namespace}>{roots}</container>'.encode()


NAV = (
    f'<html xmlns="http://www.w3.org/1999/xhtml"{OPS}><body><nav epub:type="toc"><ol><li><a href="one.xhtml">First</a>'
    '</li><li><a href="two.xhtml">Second</a></li></ol></nav></body></html>'
)
NCX = (
    '<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/" version="2005-1"><navMap>'
    '<navPoint><navLabel><text>First</text></navLabel><content src="one.xhtml"/></navPoint>'
    '<navPoint><navLabel><text>Second</text></navLabel><content src="two.xhtml"/></navPoint></navMap></ncx>'
)
PAGES = item("one", "one.xhtml") + item("two", "two.xhtml")
NAV_ITEM, NCX_ITEM = (
    item("nav", "nav.xhtml", more=' properties="nav"'),
    item("ncx", "toc.ncx", "application/x-dtbncx+xml"),
)
ENCRYPTION = (
    '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container" xmlns:e="http://www.w3.org/2001/04/xmlenc#">'
    '<e:EncryptedData><e:EncryptionMethod Algorithm="http://www.idpf.org/2008/embedding"/><e:CipherData>'
    '<e:CipherReference URI="OEBPS/fonts/a.otf"/></e:CipherData></e:EncryptedData></encryption>'
)


def book(opf: str = "", **changes: bytes | str | None) -> Files:
    """The usual book of two chapters with other files in place of its own: "/" is written as "__"; None: left out."""
    files: dict[str, bytes | str | None] = {
        "mimetype": b"application/epub+zip", "META-INF/container.xml": container(),
        "OEBPS/content.opf": opf or package(PAGES + NAV_ITEM, refs("one", "two")), "OEBPS/nav.xhtml": NAV,
        "OEBPS/one.xhtml": page("First", ONE), "OEBPS/two.xhtml": page("Second", TWO),
    }  # fmt: skip
    files |= {f"OEBPS/{name.replace('__', '/')}": data for name, data in changes.items()}
    return {
        name: data if isinstance(data, bytes) else data.encode() for name, data in files.items() if data is not None
    }


def renamed(files: Files, names: dict[str, str]) -> Files:
    return {names.get(name, name): data for name, data in files.items()}


def turned(files: Files, encoding: str, declared: str) -> Files:
    """The pages in another encoding, which they declare."""
    pages = {name: data for name, data in files.items() if name.endswith(("one.xhtml", "two.xhtml"))}
    text = {name: data.decode().replace('encoding="utf-8"', f'encoding="{declared}"') for name, data in pages.items()}
    return files | {name: data.encode(encoding) for name, data in text.items()}


def noted() -> Files:
    note = '<aside epub:type="footnote" id="n1"><p>A note of the editor.</p></aside>'
    text = ONE.replace("stairs.", 'stairs.<a epub:type="noteref" href="#n1"><sup>1</sup></a>')
    return book() | {"OEBPS/one.xhtml": page("First", text, extra=note).encode()}


OLD = package(PAGES + NCX_ITEM, refs("one", "two"), "2.0", ' toc="ncx"')
SHAPES: dict[str, Callable[[], Files]] = {
    "EPUB 3": book,
    "EPUB 2 with an NCX": lambda: book(OLD, **{"toc.ncx": NCX, "nav.xhtml": None}),
    "EPUB 3 with an NCX for older readers": lambda: book(
        package(PAGES + NAV_ITEM + NCX_ITEM, refs("one", "two"), toc=' toc="ncx"'), **{"toc.ncx": NCX}
    ),
    "no table of contents": lambda: book(package(PAGES, refs("one", "two"), "2.0"), **{"nav.xhtml": None}),
    "the contents as a page of the book": lambda: book(package(PAGES + NAV_ITEM, refs("nav", "one", "two"))),
    "a cover page and a picture": lambda: book(
        package(
            item("cover", "cover.xhtml")
            + item("pic", "cover.jpg", "image/jpeg", ' properties="cover-image"') + PAGES
            + NAV_ITEM,
            '<itemref idref="cover" linear="no"/>' + refs("one", "two"),
            more='<guide><reference type="cover" title="Cover" href="cover.xhtml"/></guide>',
        ),
        **{"cover.xhtml": '<html xmlns="http://www.w3.org/1999/xhtml"><body><img src="cover.jpg"/></body></html>',
           "cover.jpg": b"\xff\xd8\xff" + bytes(2000)},
    ),
    "footnotes": noted,
    "embedded fonts": lambda: book(
        package(PAGES + NAV_ITEM + item("f", "fonts/a.otf", "font/otf"), refs("one", "two")),
        **{"fonts/a.otf": b"OTTO" + bytes(5000)},
    ),
    "scrambled fonts": lambda: (
        book(**{"fonts/a.otf": bytes(range(256))}) | {"META-INF/encryption.xml": ENCRYPTION.encode()}
    ),
    "percent-encoded names": lambda: renamed(
        book(package(item("one", "Chapter%20One.xhtml") + item("two", "caf%C3%A9.xhtml"), refs("one", "two"))),
        {"OEBPS/one.xhtml": "OEBPS/Chapter One.xhtml", "OEBPS/two.xhtml": "OEBPS/café.xhtml"},
    ),
    "byte order marks": lambda: {
        name: b"\xef\xbb\xbf" + data if name.endswith(("ml", "opf")) else data for name, data in book().items()
    },
    "UTF-16 pages": lambda: turned(book(), "utf-16", "utf-16"),
    "Windows-1252 pages": lambda: turned(book(), "cp1252", "windows-1252"),
    "spine items that are not in the manifest": lambda: book(
        package(PAGES + NAV_ITEM, refs("gone", "one", "nowhere", "two"))
    ),
    "manifest items that are not in the archive": lambda: book(
        package(PAGES + NAV_ITEM + item("gone", "gone.xhtml"), refs("one", "gone", "two"))
    ),
    "a package at the top": lambda: renamed(
        book() | {"META-INF/container.xml": container("content.opf")},
        {f"OEBPS/{name}": name for name in ("content.opf", "nav.xhtml", "one.xhtml", "two.xhtml")},
    ),
    "pages in a folder of their own": lambda: renamed(
        book(package(item("one", "../text/one.xhtml") + item("two", "../text/two.xhtml"), refs("one", "two"), "2.0")),
        {"OEBPS/one.xhtml": "text/one.xhtml", "OEBPS/two.xhtml": "text/two.xhtml"},
    ),
    "named entities and a DTD": lambda: book() | {
        "OEBPS/two.xhtml": page("Second", "A ship&rsquo;s lamp burned &mdash; far out.").replace(
            "<!DOCTYPE html>",
            '<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.1//EN" "http://www.w3.org/TR/xhtml11/DTD/xhtml11.dtd">',
        ).encode()
    },
    "pages as text/html that are no XML": lambda: book(
        package(
            item("one", "one.xhtml", "text/html") + item("two", "two.xhtml", "text/html"), refs("one", "two"), "2.0"
        )
    ) | {"OEBPS/one.xhtml": f"<html><body><h1>First<br></h1><p>{ONE}<p>".encode()},
    "styles, scripts and a container with spaces": lambda: book() | {
        "META-INF/container.xml": b"\n  " + container().replace(b"<?xml version=\"1.0\"?>", b"") + b"\n",
        "OEBPS/one.xhtml": page(
            "First", ONE, "<style>p { color: red }</style><script>var hidden = 1;</script>"
        ).encode(),
    },
}  # fmt: skip


def packed(files: Files) -> bytes:
    """A ZIP with the type first and stored, as the format asks."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data, zipfile.ZIP_STORED if name == "mimetype" else zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def read(shape: str) -> Document:
    return from_bytes(packed(SHAPES[shape]()), title="book.epub", source="s")


def test_there_are_twenty() -> None:
    assert len(SHAPES) == 20


@pytest.mark.parametrize("shape", SHAPES)
def test_books_of_every_shape_are_read(shape: str, record_property: Callable[[str, object], None]) -> None:
    found = read(shape)
    assert found.text.count(ONE.rstrip(".")) == found.text.count(TWO) == 1
    first, second = found.text.index("First"), found.text.index("Second")
    assert first < found.text.index(ONE[:20]) < second < found.text.index(TWO)
    assert not any(word in found.text for word in ("color", "hidden", "cover.jpg", "<", "&", "\ufeff"))
    assert [place.label for place in found.places if place.kind == "chapter"] == ["First", "Second"]
    record_property("EPUBs", 1)


def test_a_footnote_is_kept() -> None:
    assert "A note of the editor." in read("footnotes").text


def test_a_part_that_is_missing_is_told() -> None:
    notes = " ".join(read("manifest items that are not in the archive").notes)
    assert "1 of 3 parts" in notes
