"""Files and pipes: what is text is read exactly, what is not is refused in one line with a hint, and fast."""

from __future__ import annotations

import errno
import io
import os
import threading
import zipfile
from pathlib import Path

import pytest

from longmamba_mlx.documents import from_bytes, from_stdin, read_document, read_documents, reader
from longmamba_mlx.errors import DocumentError, DocumentMissingError

TEXT = "Der Mädchenhandelsschulen-Übungsplatz.\n\nZweiter Absatz – mit “Anführung”.\n"


def put(folder: Path, content: bytes, name: str = "book.txt") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def refusal(path: str | Path) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        read_document(path)
    error = caught.value
    assert str(error).isprintable() and error.hint and error.hint.isprintable()
    assert error.exit_code == (66 if isinstance(error, DocumentMissingError) else 65)
    return error


# ------------------------------------------------------------------------------------------------ encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode(tmp_path: Path, encoding: str) -> None:
    document = read_document(put(tmp_path, TEXT.encode(encoding)))
    assert document.text == TEXT
    assert document.title == "book.txt" and document.source == str(tmp_path / "book.txt")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_byte_order_marks_of_either_order(tmp_path: Path, encoding: str) -> None:
    assert read_document(put(tmp_path, ("\ufeff" + TEXT).encode(encoding))).text == TEXT


LEGACY = [
    ("cp1252", "Das Mädchen aß übermäßig viele Äpfel, “sagte” er – naïve café."),
    ("cp1252", "A plain English text that speaks of one café, and of nothing else at all. " * 30),
    ("latin-1", "café"),
    ("mac_roman", "Das Mädchen aß übermäßig viele Äpfel im Garten und trank Öl."),
    ("cp1250", "Příliš žluťoučký kůň úpěl ďábelské ódy a pak běžel domů."),
    ("cp1251", "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему."),
    ("koi8_r", "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива."),
    ("cp1253", "Καλημέρα κόσμε, τι κάνεις σήμερα φίλε μου; Όλα είναι καλά."),
    ("cp932", "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"),
    ("gb18030", "道可道,非常道。名可名,非常名。无名天地之始;有名万物之母。"),
    ("big5", "道可道,非常道。名可名,非常名。無名天地之始;有名萬物之母。"),
    ("cp949", "모든 국민은 인간으로서의 존엄과 가치를 가지며 행복을 추구할 권리를 가진다."),
]


@pytest.mark.parametrize(("encoding", "text"), LEGACY, ids=[f"{e}-{i}" for i, (e, _) in enumerate(LEGACY)])
def test_legacy_encodings(tmp_path: Path, encoding: str, text: str) -> None:
    assert read_document(put(tmp_path, text.encode(encoding))).text == text


def test_a_few_broken_bytes_do_not_change_the_encoding(tmp_path: Path) -> None:
    """A long UTF-8 log cut in the middle of a character: the rest must not turn into 'Ã¼'."""
    text = "Größe über alles.\n" * 500
    document = read_document(put(tmp_path, text.encode() + "é".encode()[:1]))
    assert document.text == text + "\ufffd"


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfea",
        b"\xff\xfe\x00\xd8a\x00",
        b"\xfe\xff\xd8\x00\x00a",
        b"\xff\xfe\x00\x00abcd",
        b"text with a NUL\x00" * 10,
        bytes(range(1, 256)) * 10,
        b"\x01\x02\x03\x04\x05\x06" * 50,
        b"\x00" * 5000,
        os.urandom(5000),
    ],
    ids=range(9),
)
def test_what_is_not_text(tmp_path: Path, content: bytes) -> None:
    assert "is not text" in str(refusal(put(tmp_path, content)))


def test_a_stray_nul_and_colours_are_taken_out(tmp_path: Path) -> None:
    content = b"\x1b[31mred\x1b[0m line\r\n" * 500 + b"end\x00"
    assert read_document(put(tmp_path, content)).text == "red line\n" * 500 + "end "


# ---------------------------------------------------------------------------------------------- other formats


def zipped(*names: str, first: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        if first:
            archive.writestr("mimetype", first)
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


FORMATS = [
    (zipped("[Content_Types].xml", "xl/workbook.xml"), "an Excel"),
    (zipped("[Content_Types].xml", "ppt/presentation.xml"), "a PowerPoint"),
    (zipped("a.txt"), "a ZIP"),
    (zipped(), "a ZIP"),
    (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "a PNG"),
    (b"\xff\xd8\xff\xe0\x00\x10JFIF", "a JPEG"),
    (b"GIF89a\x01\x00", "a GIF"),
    (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "a WebP"),
    (b"RIFF\x00\x00\x00\x00WAVEfmt ", "a sound"),
    (b"\x00\x00\x00\x18ftypheic", "HEIC"),
    (b"\x00\x00\x00\x18ftypmp42", "a film"),
    (b"\x1f\x8b\x08\x00", "a gzip"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip"),
    (b"a" * 257 + b"ustar\x0000", "a tar"),
    (b"%!PS-Adobe-3.0\n", "PostScript"),
    (b"\x00" * 60 + b"TEXtREAd", "a Palm"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Office"),
    (b"\x00" * 60 + b"BOOKMOBI", "Kindle"),
    (b"SQLite format 3\x00", "SQLite"),
    (b"\x7fELF\x02", "a program"),
    (b"GGUF\x03\x00", "a GGUF"),
]


@pytest.mark.parametrize(("content", "kind"), FORMATS, ids=[kind for _, kind in FORMATS])
def test_other_formats_are_named_whatever_the_extension(tmp_path: Path, content: bytes, kind: str) -> None:
    error = refusal(put(tmp_path, content))
    assert kind in str(error) and "book.txt" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "# A Markdown file\n\n<div>with HTML</div>",
        "<h1 align=center>Readme</h1>",
        "PDF: %PDF-1.7 is how they begin",
        "PKZIP was a program",
        "MZ is no program here",
        "BM is no picture",
        "GIF is a format",
        "ID3 tags, explained",
        '{"json": true}',
        "a,b\n1,2",
    ],
)
def test_text_that_looks_like_something_else(tmp_path: Path, text: str) -> None:
    assert read_document(put(tmp_path, text.encode(), "book.pdf")).text == text


# ------------------------------------------------------------------------------------------ odd inputs


@pytest.mark.parametrize(
    "content", [b"", b"\xef\xbb\xbf", b" \n\t\r\n ", b"\xff\xfe", b"\x0c\x0c", "\u3000\n".encode()]
)
def test_nothing_to_read(tmp_path: Path, content: bytes) -> None:
    assert "empty" in str(error := refusal(put(tmp_path, content))) or "white space" in str(error)


def test_no_such_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    assert refusal(tmp_path / "none.txt").exit_code == 66
    error = refusal(tmp_path / "link")
    assert error.exit_code == 66 and "link" in str(error)
    assert refusal(tmp_path / "none" / "a.txt").exit_code == 66
    assert refusal("").exit_code == 65  # "" is the current folder


def test_folders_pipes_and_devices(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.txt").write_text("Only this.", encoding="utf-8")
    assert read_document(tmp_path).text == "Only this.", "a pipe in a folder is passed over"
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("Through a pipe.",))
    writer.start()
    assert read_document(tmp_path / "pipe").text == "Through a pipe."
    writer.join()
    for device in ("/dev/zero", "/dev/null"):
        assert "is a device" in str(refusal(device))


def test_links_that_turn_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    refusal(tmp_path / "a")


def test_a_file_as_folder_and_names_that_cannot_be(tmp_path: Path) -> None:
    put(tmp_path, b"text")
    for path in (tmp_path / "book.txt" / "x", tmp_path / ("x" * 300), "a\x00b"):
        assert refusal(path).exit_code == 65


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    path = put(tmp_path, b"text")
    monkeypatch.setattr(os, "open", refuse)
    assert "may not be read" in str(refusal(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_the_right_to_read(tmp_path: Path) -> None:
    path = put(tmp_path, b"text")
    path.chmod(0)
    assert "may not be read" in str(refusal(path))


def test_a_disk_that_fails_while_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(reader._Counted, "read", fail)
    assert "Input/output error" in str(refusal(put(tmp_path, b"text")))


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    before = len(os.listdir(folder))
    for path in (tmp_path, put(tmp_path, b"text"), put(tmp_path, b"\x00" * 9, "b"), "/dev/null"):
        try:
            read_document(path)
        except DocumentError:
            continue
    assert len(os.listdir(folder)) == before


def test_the_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(reader.MOST_BYTES + 1)
    assert "over the limit of 2.1 GB" in str(refusal(tmp_path / "huge"))
    monkeypatch.setattr(reader, "MOST_BYTES", 100)
    assert len(read_document(put(tmp_path, b"x" * 100)).text) == 100
    refusal(put(tmp_path, b"x" * 101))
    with pytest.raises(DocumentError, match="together"):
        read_documents([put(tmp_path, b"x" * 60, "a"), put(tmp_path, b"x" * 60, "b")])


def test_a_file_that_grows_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MOST_BYTES", 100)
    monkeypatch.setattr(reader, "_check_kind", lambda *arguments: None)  # as if it was small when it was asked
    refusal(put(tmp_path, b"x" * 101))


def test_one_line_of_many_megabytes(tmp_path: Path) -> None:
    document = read_document(put(tmp_path, b"word " * 2_000_000))
    assert len(document.text) == 10_000_000
    assert max(p.end - p.start for p in document.paragraphs) <= 2000


def test_names_are_made_safe(tmp_path: Path) -> None:
    document = read_document(put(tmp_path, b"text", "a\x1b]0;x\x07\nb.txt"))
    assert document.title == "a]0;x b.txt"
    for name in ("none\x1b[2J.txt", "none\u202e.txt", os.fsdecode(b"none\xff.txt")):
        str(refusal(tmp_path / name)).encode("utf-8")


def test_odd_names(tmp_path: Path) -> None:
    for name in ("a b.txt", "📚.txt", "ü" * 120 + ".txt", "-", "--help", "[x].txt"):
        assert read_document(put(tmp_path, b"text", name)).title == name


# ------------------------------------------------------------------------------------------------------ pipes


class Endless(io.RawIOBase):
    def read(self, size: int = -1, /) -> bytes:
        return b"y\n" * (size // 2)


def test_stdin() -> None:
    document = from_stdin(io.BytesIO(TEXT.encode()))
    assert (document.text, document.title, document.source) == (TEXT, "stdin", "stdin")
    assert from_stdin(io.TextIOWrapper(io.BytesIO(TEXT.encode()), "ascii")).text == TEXT


def test_stdin_in_small_pieces() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"abc")
    os.write(write_end, b"def")
    os.close(write_end)
    with os.fdopen(read_end, "rb", buffering=0) as pipe:
        assert from_stdin(pipe).text == "abcdef"


@pytest.mark.parametrize("content", [b"", b"\n", b"%PDF-1.4", b"\x00" * 50])
def test_stdin_refused(content: bytes) -> None:
    with pytest.raises(DocumentError, match="stdin"):
        from_stdin(io.BytesIO(content))


def test_stdin_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MOST_BYTES", 1 << 22)
    with pytest.raises(DocumentError, match="over the limit"):
        from_stdin(Endless())


def test_stdin_that_fails() -> None:
    class Broken:
        def read(self, size: int, /) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(DocumentError, match="Input/output error"):
        from_stdin(Broken())


def test_a_dash_is_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"piped")))
    assert read_document("-").text == "piped"


def test_from_bytes() -> None:
    assert from_bytes(b"a\r\nb", title="t", source="s").text == "a\nb"
