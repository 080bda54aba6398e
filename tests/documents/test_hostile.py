"""Files made to do harm: each ends in one line with a hint, soon, within limits, and this process lives on."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from longmamba_mlx.documents import Document, child, from_bytes, read_document, read_documents
from longmamba_mlx.documents.formats import archive, wire, worker
from longmamba_mlx.documents.formats.builder import Parsed, Refused, TextBuilder
from longmamba_mlx.documents.refusals import refusal
from longmamba_mlx.errors import DocumentError, StoppedError

SAMPLES = Path(__file__).parent / "samples"
MEMORY = 256 << 20  # bytes that a hostile file may cost the child


def refused(data: bytes, words: str, seconds: float = 20.0) -> None:
    """`data` is refused in one line that holds `words`, soon."""
    started = time.monotonic()
    with pytest.raises(DocumentError, match=words) as caught:
        from_bytes(data, title="book", source="s")
    assert caught.value.hint and caught.value.exit_code == 65 and "\n" not in str(caught.value)
    assert time.monotonic() - started < seconds


def packed(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method, compresslevel=9) as book:
        for name, content in files.items():
            book.writestr(name, content)
    return buffer.getvalue()


def word(document: bytes, **parts: bytes) -> bytes:
    return packed({"word/document.xml": document, **{f"word/{name}.xml": data for name, data in parts.items()}})


def in_process(kind: str, data: bytes) -> Parsed | Refused:
    """What a child would tell, without one: for the many."""
    try:
        return wire.read(b"".join(worker.answer(worker.reader_of(kind), io.BytesIO(data))))
    except Refused as why:
        return why


CONTAINER = b'<container><rootfiles><rootfile full-path="b.opf"/></rootfiles></container>'
BOMB = b"<p>" + b"a" * (archive.MOST_ENTRY_BYTES + 10)
LAUGHS = b"<!DOCTYPE x [<!ENTITY a 'ha'>" + b"".join(
    b"<!ENTITY %c '%s'>" % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9)
)


def test_a_bomb_in_one_entry() -> None:
    refused(word(BOMB), "far more")


def test_many_entries_that_are_each_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", 1 << 20)
    page = b"<p>" + os.urandom(50_000).hex().encode() + b"</p>"
    items = "".join(f'<item id="i{n}" href="{n}.xhtml" media-type="text/html"/>' for n in range(20)).encode()
    spine = "".join(f'<itemref idref="i{n}"/>' for n in range(20)).encode()
    package = b"<package><manifest>" + items + b"</manifest><spine>" + spine + b"</spine></package>"
    book = {"META-INF/container.xml": CONTAINER, "b.opf": package}
    found = in_process("packages", packed({**book, **{f"{n}.xhtml": page for n in range(12)}}))
    assert isinstance(found, Refused) and found.code == "bomb"


def test_an_entry_that_lies_about_its_size() -> None:
    data = bytearray(word(b"<document>" + b"a" * 3_000_000))
    position = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, position + 24, 10)
    struct.pack_into("<I", data, 22, 10)
    assert isinstance(in_process("packages", bytes(data)), Refused)


def test_too_many_entries() -> None:
    refused(packed({f"word/{n}": b"" for n in range(archive.MOST_ENTRIES + 1)}, zipfile.ZIP_STORED), "far more")


MEASURE = """
import resource, sys
from longmamba_mlx.documents import read_document
from longmamba_mlx.errors import DocumentError
for path in sys.argv[1:]:
    try:
        read_document(path)
    except DocumentError:
        continue
    raise SystemExit(f"{path} was read")
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << (0 if sys.platform == "darwin" else 10))
"""


def test_what_bombs_cost(tmp_path: Path) -> None:
    """Measured from a small process: a child's peak counts what its parent held when it was started."""
    bombs = {
        "entry": word(BOMB),
        "laughs": word(LAUGHS + b"]><document>&j;</document>"),
        "depth": word(b"<document>" + b"<a>" * 5_000_000),
        "text": packed({"META-INF/container.xml": CONTAINER, "b.opf": b"<package>" + b" " * 50_000_000}),
        "entries": packed({f"word/{n}": b"" for n in range(archive.MOST_ENTRIES + 1)}, zipfile.ZIP_STORED),
    }
    for name, data in bombs.items():
        (tmp_path / name).write_bytes(data)
    words = [sys.executable, "-c", MEASURE, *(str(tmp_path / name) for name in bombs)]
    asked = subprocess.run(words, capture_output=True, text=True, check=True)
    assert int(asked.stdout) < MEMORY


def test_a_limit_of_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child is told that its time is over before it is killed."""
    monkeypatch.setattr(child, "_SECONDS", 0.5)
    monkeypatch.setattr(child, "_SECONDS_PER_MEGABYTE", 0.0)
    refused(b"<html>" + b"<p>x" * 2_000_000, "took too long", 60.0)


def test_slow_files_are_refused_or_read_soon() -> None:
    body = (
        b"<w:document xmlns:w='x'><w:body>"
        + b"<w:p><w:r><w:t>x</w:t></w:r></w:p>" * 900_000
        + b"</w:body></w:document>"
    )
    assert len(word(body)) < 100_000
    refused(word(body), "far more")
    page = b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\n"
    kids = b"2 0 obj<</Type/Pages/Kids[" + b"3 0 R " * 40_000 + b"]/Count 40000>>endobj\n"
    refused(
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n" + kids + page + b"trailer<</Root 1 0 R>>", "far more"
    )
    started = time.process_time()
    for tag in (b"<!", b"<!--", b"<?", b"<a ", b"</", b"<![", b"<script/>", b"<", b"&#"):
        in_process("markup", b"<html>" + tag * (1_000_000 // len(tag)))
    assert time.process_time() - started < 20


def test_an_archive_within_itself_is_not_opened() -> None:
    inner = packed({"word/document.xml": b"<document/>"})
    refused(packed({"a.zip": inner, "b.docx": inner}), "ZIP archive")


@pytest.mark.parametrize(
    "xml",
    [
        LAUGHS + b"]><document>&j;</document>",
        b"<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><document><body><p><r><t>&a;</t></r></p></body></document>",
        b"<!DOCTYPE x [<!ENTITY % a SYSTEM 'http://127.0.0.1:9/x'> %a;]><document/>",
        b"<document>" + b"<a>" * 200_000,
    ],
    ids=["laughs", "file", "network", "depth"],
)
def test_xml_that_grows_or_reaches_out(xml: bytes) -> None:
    for found in (in_process("packages", word(xml)), in_process("packages", word(b"<document/>", styles=xml))):
        assert isinstance(found, Refused) and found.code in ("bomb", "damaged")
    refused(word(xml), "far more|damaged")


def test_external_entities_in_a_page_are_text() -> None:
    page = b"<?xml version='1.0'?><!DOCTYPE html [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><html><p>x &a; y</p></html>"
    found = in_process("markup", page)
    assert isinstance(found, Parsed) and "root:" not in found.text


def test_names_that_lead_out_of_the_archive(tmp_path: Path) -> None:
    items = b"".join(
        b'<item id="i%d" href="%s" media-type="application/xhtml+xml"/>' % (n, name)
        for n, name in enumerate((b"../../etc/passwd", b"/etc/passwd", b"file:///etc/passwd", b"ok.xhtml", b"%2e%2e/x"))
    )
    spine = b"".join(b'<itemref idref="i%d"/>' % n for n in range(5))
    package = b"<package><manifest>" + items + b"</manifest><spine>" + spine + b"</spine></package>"
    files = {
        "META-INF/container.xml": CONTAINER,
        "b.opf": package,
        "ok.xhtml": b"<p>fine</p>",
        "../x": b"<p>in here</p>",
    }
    found = in_process("packages", packed(files))
    assert isinstance(found, Parsed) and "root:" not in found.text and "fine" in found.text
    assert not list(tmp_path.iterdir())


def test_an_encrypted_archive() -> None:
    data = bytearray(word(b"<document/>"))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + at] |= 1
    refused(bytes(data), "encrypted")


@pytest.mark.parametrize(
    "data",
    [
        b"%PDF-1.7\n",
        b"%PDF-1.7\n" + os.urandom(4000),
        b"%PDF-1.4\ntrailer<</Root 1 0 R/Size 9>>\nstartxref\n9\n%%EOF",
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[2 0 R]/Count 9>>endobj "
        b"trailer<</Root 1 0 R>>",
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[]/Count 1000000>>endobj "
        b"trailer<</Root 1 0 R>>",
        b"PK\x03\x04" + os.urandom(500),
        b"PK\x05\x06" + b"\0" * 18,
        (SAMPLES / "libreoffice.pdf").read_bytes()[:30_000],
        (SAMPLES / "pandoc.epub").read_bytes()[:-40],
    ],
    ids=["head", "noise", "no root", "loop", "page count", "zip noise", "empty zip", "half a pdf", "cut zip"],
)
def test_broken_files(data: bytes) -> None:
    refused(data, "damaged|holds no text|ZIP archive|scanned|more text or pages")


def test_a_pdf_with_streams_in_streams() -> None:
    import zlib

    inner = zlib.compress(b"BT /F1 12 Tf (x) Tj ET " * 300_000, 9)
    for _ in range(2):
        inner = zlib.compress(inner, 9)
    head = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    page = b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>endobj\n"
    stream = b"4 0 obj<</Length %d/Filter[/FlateDecode/FlateDecode/FlateDecode]>>stream\n%s\nendstream endobj\n"
    data = head + page + stream % (len(inner), inner) + b"trailer<</Root 1 0 R>>\n%%EOF"
    assert len(data) < 10_000
    started = time.monotonic()
    try:
        from_bytes(data, title="book", source="s")
    except DocumentError as error:
        assert error.hint
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("name", ["pandoc.html", "pandoc.epub", "libreoffice.docx"])
def test_changed_bytes(name: str) -> None:
    """No change of a file's bytes leads to anything but a text or a refusal."""
    data = (SAMPLES / name).read_bytes()
    chance = random.Random(name)
    kind = "markup" if name.endswith("html") else "packages"
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(chance.choice((1, 3, 30))):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        found = in_process(kind, bytes(changed[: chance.choice((len(data), chance.randrange(len(data))))]))
        assert isinstance(found, Refused) or found.text


@pytest.mark.slow
@pytest.mark.timeout(12 * 3600)
@pytest.mark.parametrize("seed", range(200))
def test_changed_pdfs(seed: int) -> None:
    data = bytearray((SAMPLES / "libreoffice.pdf").read_bytes())
    chance = random.Random(seed)
    for _ in range(chance.choice((1, 10, 100))):
        data[chance.randrange(len(data))] = chance.randrange(256)
    try:
        assert from_bytes(bytes(data), title="t", source="s").text
    except DocumentError as error:
        assert error.hint


# ------------------------------------------------------------------------------------------------- the child process


def fake_child(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    start = subprocess.Popen

    def instead(words: list[str], **options: object) -> subprocess.Popen[bytes]:
        return start([sys.executable, "-c", code] if words[0] == sys.executable else words, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(child.subprocess, "Popen", instead)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os.abort()", "fail"),
        ("import sys; sys.exit(3)", "fail"),
        ("print('hello')", "fail"),
        ("import os; os.write(1, b'longmamba text 1\\n9 0 3\\nabc')", "fail"),
        ("import os; os.write(1, b'longmamba refuses nonsense x\\n')", "damaged"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", "too long"),
        ("import time; time.sleep(60)", "too long"),
        ("while True: print('x' * 9999)", "too long|fail"),
    ],
    ids=["abort", "exit", "nonsense", "torn", "unknown", "cpu", "sleep", "flood"],
)
def test_a_child_that_fails(monkeypatch: pytest.MonkeyPatch, code: str, words: str) -> None:
    monkeypatch.setattr(child, "_SECONDS", 0.5)
    monkeypatch.setattr(wire, "MOST_BYTES", 1 << 20)
    fake_child(monkeypatch, code)
    started = time.monotonic()
    with pytest.raises(DocumentError, match=words):
        from_bytes(b"<html>x", title="page", source="s")
    assert time.monotonic() - started < 15


def test_the_child_ends_with_its_parents_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the child works: it is gone when the exception arrives."""
    found: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def spy(words: list[str], **options: object) -> subprocess.Popen[bytes]:
        found.append(start([sys.executable, "-c", "import time; time.sleep(60)"], **options))  # type: ignore[call-overload]
        return found[0]

    def interrupted(process: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(child.subprocess, "Popen", spy)
    monkeypatch.setattr(child, "_answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        from_bytes(b"<html>x", title="page", source="s")
    assert found[0].poll() is not None


def test_the_child_is_ended_as_soon_as_nobody_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Esc while a large file is parsed: the text is not waited for."""
    found: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def spy(words: list[str], **options: object) -> subprocess.Popen[bytes]:
        found.append(start([sys.executable, "-c", "import time; time.sleep(60)"], **options))  # type: ignore[call-overload]
        return found[0]

    monkeypatch.setattr(child.subprocess, "Popen", spy)
    page = tmp_path / "page.html"
    page.write_text("<html>x")
    began = time.monotonic()
    with pytest.raises(StoppedError, match="stopped"):
        read_documents([page], should_stop=lambda: bool(found))
    assert time.monotonic() - began < 5 and found[0].poll() is not None


def test_a_large_text_is_not_read_on_after_a_stop(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text("whale " * (1 << 20))
    asked: list[int] = []
    with pytest.raises(StoppedError):
        read_documents([book], should_stop=lambda: asked.append(1) or len(asked) > 2)
    assert len(asked) == 3


@pytest.mark.parametrize("broken", ["subprocess.Popen", "tempfile.TemporaryFile"])
def test_a_machine_without_room(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(broken, fail)
    with pytest.raises(DocumentError, match="No space left"):
        from_bytes(b"<html>x", title="page", source="s")
    if broken == "subprocess.Popen":
        with pytest.raises(DocumentError, match="No space left"):
            read_document(SAMPLES / "pandoc.html")


def test_memory_is_watched_where_it_is_not_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child.sys, "platform", "darwin")
    monkeypatch.setattr(child, "memory_for", lambda size: 80 << 20)
    fake_child(monkeypatch, "x = b'x' * (200 << 20); import time; time.sleep(60)")
    with pytest.raises(DocumentError, match="memory"):
        from_bytes(b"<html>x", title="page", source="s")


PROBE = """
import os, socket, sys
from longmamba_mlx.documents.formats.limits import lock_down
lock_down(20, 1 << 30)
def refuses(what):
    try:
        what()
    except (OSError, MemoryError, ValueError) as error:
        return type(error).__name__
    return "allowed"
tries = {
    "open": lambda: open("/etc/hosts"),
    "write": lambda: open("/tmp/x", "w"),
    "socket": lambda: socket.socket(),
    "pipe": os.pipe,
    "limit": lambda: __import__("resource").setrlimit(__import__("resource").RLIMIT_NOFILE, (99, 99)),
}
if sys.platform == "linux":
    tries["memory"] = lambda: bytearray(2 << 30)
print({name: refuses(what) for name, what in tries.items()})
"""


def test_the_child_can_open_nothing() -> None:
    asked = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    told = eval(asked.stdout)
    if os.geteuid() == 0:
        told.pop("limit")  # root may raise its limits again
    assert "allowed" not in told.values(), told


def test_fonts_that_are_not_in_the_file_need_no_files() -> None:
    """PDFium looks for such fonts on the disk, which the child cannot open: the text is known all the same."""
    content = b"BT /F1 12 Tf 72 700 Td (The keeper of the light) Tj 0 -20 Td (wrote it down.) Tj ET"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 400 800]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(content), content),
        b"<</Type/Font/Subtype/TrueType/BaseFont/SomeFontNobodyHas>>",
    ]
    body = b"".join(b"%d 0 obj%s\nendobj\n" % (number, item) for number, item in enumerate(objects, 1))
    document = from_bytes(b"%PDF-1.4\n" + body + b"trailer<</Root 1 0 R>>\n%%EOF", title="t", source="s")
    assert document.text.replace("\n", " ") == "The keeper of the light wrote it down."
    assert document.place_at(0) == "page 1"


def test_the_child_sees_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    environment = child._environment()
    assert "secret" not in str(environment) and environment["PYTHONPATH"]


def test_reading_needs_no_more_descriptors_afterwards() -> None:
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    read_document(SAMPLES / "pandoc.html")
    before = len(os.listdir(folder))
    for name in ("pandoc.html", "scanned.pdf"):
        try:
            read_document(SAMPLES / name)
        except DocumentError:
            continue
    assert len(os.listdir(folder)) == before


def test_a_script_without_a_main_guard(tmp_path: Path) -> None:
    """The child must not run the user's program again."""
    script = tmp_path / "script.py"
    script.write_text(
        f"print('once')\nfrom longmamba_mlx.documents import read_document\n"
        f"print(len(read_document({str(SAMPLES / 'pandoc.html')!r}).text))\n"
    )
    asked = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert asked.stdout.split() == ["once", str(len(read_document(SAMPLES / "pandoc.html").text))]


# --------------------------------------------------------------------------------------------------------- limits


def test_limits_of_text_and_places() -> None:
    out = TextBuilder(limit=100)
    out.paragraph("x" * 90)
    with pytest.raises(Refused):
        out.paragraph("y" * 20)


def test_every_refusal_has_words() -> None:
    for code in ("encrypted", "protected", "scanned", "bomb", "memory", "time", "crash", "zip", "what?"):
        error = refusal("b\x1bk", Refused(code, "3 pages"))
        assert str(error).isprintable() and error.hint and isinstance(error, DocumentError)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_what_the_child_says_comes_back(count: int) -> None:
    out = TextBuilder()
    for number in range(count):
        out.mark("page", f"page {number}", number)
        out.paragraph(f"Text – of {number}\nand more", tight=bool(number % 2))
    out.paragraph("end")
    out.note("a note")
    parsed = out.finish()
    assert wire.read(b"".join(wire.write(parsed))) == parsed


def test_nothing_else_is_accepted() -> None:
    good = b"".join(wire.write(Parsed("abc\n", ())))
    out = TextBuilder()
    out.mark("chapter", "One", 1, 2)
    out.paragraph("text")
    marked = b"".join(wire.write(out.finish()))
    for bad in (
        b"",
        b"longmamba text 1\n",
        good[:-1],
        good + b"x",
        good.replace(b"0 0 4", b"-1 0 4"),
        good.replace(b"abc", b"a\x1bc"),
        good.replace(b"abc", b"a\xffc"),
        marked.replace(b"0 chapter", b"9 chapter"),
        marked.replace(b"chapter", b"nothing"),
        marked.replace(b"0 chapter", b"-1 chapter"),
        marked.replace(b"One", b""),
        b"\x80\x04N." * 5,
    ):
        with pytest.raises(wire.WireError):
            wire.read(bad)
    chance = random.Random(1)
    for _ in range(3000):
        changed = bytearray(marked)
        changed[chance.randrange(len(changed))] = chance.randrange(256)
        try:
            parsed = wire.read(bytes(changed))
        except (wire.WireError, Refused):
            continue
        assert isinstance(Document("t", parsed.text), Document)
