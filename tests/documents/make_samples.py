"""Makes the files in samples/ with the programs that people's files come from. Run by hand; needs them installed.

    python tests/documents/make_samples.py

Made with pandoc 2.17.1.1, LibreOffice 7.4.7.2 with hyphenation patterns for en-US, and qpdf 11.3.0, all of Debian 12;
the source is the text below.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

SAMPLES = Path(__file__).parent / "samples"
WORDS = (
    "The keeper of the lighthouse wrote down every ship that passed the cape, with its name, its colours and the "
    "hour, and nobody had ever asked to see the book.",
    "In the winter the fog came in from the north-west and lay upon the water for weeks, so that the lamp could be "
    "seen no farther than the end of the pier.",
    "Her grandmother had told her that the bell on the outer reef was rung by the drowned, but she had seen the "
    "waves ring it herself, on a bright and windy afternoon in March.",
    "They carried the oil up the hundred and eighty-seven steps in copper cans, two at a time, and rested on the "
    "landing where the window looked out over the harbour.",
    "When the inspector came from the mainland he counted the wicks, tasted the water and praised the brass, which "
    "was what inspectors had always done.",
)
FACTS = {
    1: "The keeper’s name was Ottilie Brandvold.",
    2: "The spare key hung behind the barometer.",
    3: "The ship that never arrived was the Halcyon, bound for Stavanger.",
}
TITLES = {1: "The Lamp", 2: "The Fog Signal", 3: "The Inspector’s Visit"}


def main() -> None:
    """All samples, from one Markdown source; the PDFs by way of Word files, as people make them."""
    SAMPLES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "lighthouse.md"
        source.write_text(markdown(), encoding="utf-8")
        pandoc(source, SAMPLES / "pandoc.html", "--standalone")
        pandoc(source, SAMPLES / "pandoc.docx")
        pandoc(source, SAMPLES / "pandoc.epub", "--epub-chapter-level=1", "--toc-depth=2")
        pandoc(source, SAMPLES / "pandoc-2.epub", "--to=epub2")
        pandoc(source, folder / "lighthouse.odt")
        office(folder / "lighthouse.odt", folder, "docx")
        shutil.copy(folder / "lighthouse.docx", SAMPLES / "libreoffice.docx")
        office(folder / "lighthouse.odt", folder, "html")
        shutil.copy(folder / "lighthouse.html", SAMPLES / "libreoffice.html")
        shutil.copy(folder / "lighthouse.odt", SAMPLES / "pandoc.odt")
        (folder / "paged.fodt").write_text(paged(), encoding="utf-8")
        office(
            folder / "paged.fodt",
            folder,
            "pdf:writer_pdf_Export:" + '{"ExportBookmarks":{"type":"boolean","value":"true"}}',
        )
        shutil.copy(folder / "paged.pdf", SAMPLES / "libreoffice.pdf")
        office(folder / "paged.fodt", folder, "doc")
        shutil.copy(folder / "paged.doc", SAMPLES / "libreoffice.doc")
        run("qpdf", "--encrypt", "secret", "owner", "256", "--", SAMPLES / "libreoffice.pdf", SAMPLES / "encrypted.pdf")
        run("qpdf", "--encrypt", "", "owner", "256", "--", SAMPLES / "libreoffice.pdf", SAMPLES / "restricted.pdf")
        scan(folder)
        pages = (SAMPLES / "libreoffice.pdf", "1-2", SAMPLES / "scanned.pdf", "1")
        run("qpdf", "--empty", "--pages", *pages, "--", SAMPLES / "mixed.pdf")
        office(folder / "lighthouse.odt", folder, "epub")
        shutil.copy(folder / "lighthouse.epub", SAMPLES / "libreoffice.epub")
    for path in sorted(SAMPLES.iterdir()):
        print(f"{path.stat().st_size:8d}  {path.name}")


def paragraphs(chapter: int, count: int) -> list[str]:
    """`count` paragraphs, one of them ending with the chapter's fact."""
    told = [
        " ".join(WORDS[(chapter + number + step) % len(WORDS)] for step in range(2 + number % 3))
        for number in range(count)
    ]
    told[count // 2] += " " + FACTS[chapter]
    return told


def markdown() -> str:
    """Three chapters with sections, a list, a table, a note and a quotation."""
    chapters = [
        "\n\n".join([f"# Chapter {number}: {TITLES[number]}", *paragraphs(number, 4)]) for number in sorted(TITLES)
    ]
    things = (
        "- a coil of rope\n- two lanterns\n    - one of brass\n- the log-book\n\n1. Light the lamp.\n2. Wind the clock."
    )
    table = "| Ship | Cargo | Hour |\n|---|---|---|\n| Halcyon | timber | six |\n| Marguerite | salt & coal | nine |"
    note = "The fog signal was heard for nine miles.[^1]\n\n[^1]: In still air, and by those who wished to hear it."
    quote = "> Keep the light.\n>\n> Nothing else is asked of you."
    extra = f"## What was kept in the tower\n\n{things}\n\n## What passed in one night\n\n{table}\n\n{note}\n\n{quote}"
    title = "---\ntitle: The Lighthouse Book\nauthor: Nobody\nlang: en\n---\n\n"
    return title + "\n\n".join([chapters[0], extra, *chapters[1:]]) + "\n"


def paged() -> str:
    """A flat ODT with a running header, page numbers, hyphenation, justified and indented paragraphs."""
    body = []
    for number in sorted(TITLES):
        body.append(f'<text:h text:style-name="H" text:outline-level="1">Chapter {number}: {TITLES[number]}</text:h>')
        body += [f'<text:p text:style-name="B">{text}</text:p>' for text in paragraphs(number, 14)]
    return PAGED.replace("@BODY@", "\n".join(body))


PAGED = """<?xml version="1.0" encoding="UTF-8"?>
<office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"
 xmlns:style="urn:oasis:names:tc:opendocument:xmlns:style:1.0"
 xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"
 xmlns:fo="urn:oasis:names:tc:opendocument:xmlns:xsl-fo-compatible:1.0"
 office:version="1.2" office:mimetype="application/vnd.oasis.opendocument.text">
<office:styles>
 <style:style style:name="B" style:family="paragraph">
  <style:paragraph-properties fo:text-align="justify" fo:text-indent="0.5cm" fo:line-height="115%"/>
  <style:text-properties fo:font-size="11pt" style:font-name="DejaVu Serif" fo:language="en" fo:country="US"
   fo:hyphenate="true"/>
 </style:style>
 <style:style style:name="H" style:family="paragraph">
  <style:paragraph-properties fo:margin-top="0.6cm" fo:margin-bottom="0.4cm" fo:keep-with-next="always"/>
  <style:text-properties fo:font-size="16pt" fo:font-weight="bold"/>
 </style:style>
</office:styles>
<office:automatic-styles>
 <style:page-layout style:name="P"><style:page-layout-properties fo:page-width="12cm" fo:page-height="17cm"
  fo:margin="1.5cm"/><style:header-style/><style:footer-style/></style:page-layout>
</office:automatic-styles>
<office:master-styles>
 <style:master-page style:name="Standard" style:page-layout-name="P">
  <style:header><text:p>The Lighthouse Book</text:p></style:header>
  <style:footer><text:p>Page <text:page-number text:select-page="current">1</text:page-number></text:p></style:footer>
 </style:master-page>
</office:master-styles>
<office:body><office:text>
@BODY@
</office:text></office:body>
</office:document>
"""


def scan(folder: Path) -> None:
    """A PDF whose only page is a picture, as a scanner makes it."""
    picture = folder / "page.pbm"
    rows = [f"{'1 0 ' * 40}" if row % 8 < 2 else f"{'0 0 ' * 40}" for row in range(80)]
    picture.write_text("P1\n80 80\n" + "\n".join(rows) + "\n", encoding="ascii")
    office(picture, folder, "pdf:draw_pdf_Export")
    shutil.copy(folder / "page.pdf", SAMPLES / "scanned.pdf")


def pandoc(source: Path, target: Path, *options: str) -> None:
    run("pandoc", source, "-o", target, *options)


def office(source: Path, folder: Path, kind: str) -> None:
    run("soffice", "--headless", "--convert-to", kind, "--outdir", folder, source)


def run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
