"""PDFs in the small: what is written on a page, in its order, and what is left out of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from longmamba_mlx.documents import Document, from_bytes, read_document

SAMPLES = Path(__file__).parent / "samples"
FACT = "The access code of Varnok is 48213."
Text = tuple[float, float, float, str]  # x, y, font size, words


def pdf(*pages: Sequence[Text], annotations: str = "", objects: str = "", catalog: str = "") -> Document:
    """A PDF of pages with texts; annotations are those of the first page."""
    numbers = [10 + 2 * index for index in range(len(pages))]
    kids = " ".join(f"{number} 0 R" for number in numbers)
    parts = [
        f"1 0 obj<</Type/Catalog/Pages 2 0 R{catalog}>>endobj",
        f"2 0 obj<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>endobj",
        "3 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj",
        objects,
    ]
    for number, texts in zip(numbers, pages, strict=True):
        stream = "\n".join(f"BT /F {size} Tf {x} {y} Td ({words}) Tj ET" for x, y, size, words in texts)
        notes = f"/Annots[{annotations}]" if number == 10 else ""
        parts.append(
            f"{number} 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Resources<</Font<</F 3 0 R>>>>"
            f"/Contents {number + 1} 0 R{notes}>>endobj\n"
            f"{number + 1} 0 obj<</Length {len(stream)}>>stream\n{stream}\nendstream endobj"
        )
    data = "\n".join(["%PDF-1.4", *parts, "trailer<</Root 1 0 R>>\n%%EOF"])
    return from_bytes(data.encode("latin-1"), title="a.pdf", source="s")


def test_samples() -> None:
    assert FACT in read_document(SAMPLES / "header_fact.pdf").text
    assert read_document(SAMPLES / "short_pages.pdf").text == "Document Page 1 Document Page 2 Document Page 3"
    table = "Name | Code | City\nVarnok | 48213 | Oslo\nEnnoby | 99110 | Rome"
    assert read_document(SAMPLES / "table.pdf").text == table
    assert read_document(SAMPLES / "form.pdf").text == f"Application form. Applicant:\n\n{FACT}\n\nBlue"


def test_fields_and_annotations_stand_in_place() -> None:
    lines = [(72, 700, 12, "Name:"), (72, 680, 12, "Member:"), (72, 600, 12, "The end.")]
    fields = [
        "<</Subtype/Widget/FT/Tx/T(a)/V(Ada Lovelace)/Rect[120 696 300 712]/F 4>>",
        "<</Subtype/Widget/FT/Tx/T(b)/V(secret)/Ff 8192/Rect[320 696 400 712]/F 4>>",
        "<</Subtype/Widget/FT/Tx/T(c)/V(unseen)/Rect[420 696 500 712]/F 2>>",
        "<</Subtype/Widget/FT/Btn/T(d)/V/Yes/AS/Yes/AP<</N<</Yes 7 0 R/Off 7 0 R>>>>/Rect[120 676 132 688]/F 4>>",
        "<</Subtype/Widget/FT/Tx/T(e)/V(first line\\nsecond line)/Rect[72 630 300 660]/F 4>>",
        "<</Subtype/FreeText/Contents(In a box)/DA(/F 10 Tf)/Rect[72 570 200 590]>>",
        "<</Subtype/Text/Contents(Check this)/T(Ann)/Rect[300 600 320 620]>>",
        "<</Subtype/Highlight/Contents()/Rect[72 600 120 612]>>",
        "<</Subtype/Link/Contents(a link)/Rect[72 600 120 612]>>",
    ]
    references = " ".join(f"{20 + index} 0 R" for index in range(len(fields)))
    objects = "\n".join(f"{20 + index} 0 obj<</Type/Annot{field[2:]}endobj" for index, field in enumerate(fields))
    objects += "\n7 0 obj<</Type/XObject/Subtype/Form/BBox[0 0 9 9]/Length 0>>stream\n\nendstream endobj"
    forms = f"/AcroForm<</Fields[{references}]>>"
    text = pdf(lines, annotations=references, objects=objects, catalog=forms).text
    words = " ".join(text.replace("|", " ").split())
    written = "Name: Ada Lovelace Member: ☑ first line second line [Comment by Ann] Check this The end. In a box"
    assert words == written
    assert not any(word in text for word in ("secret", "unseen", "a link", "[Comment]"))


def test_raised_marks_do_not_glue() -> None:
    line = [(72, 700, 12, "The code is 48213"), (171, 706, 7, "2"), (180, 700, 12, "and more of it")]
    assert pdf(line).text == "The code is 48213^2 and more of it"


def test_heads_are_read_once_and_it_is_said() -> None:
    long = "goes on to the margin of the page, as long ones do."
    pages = [
        [(72, 770, 12, "Case 48213"), (72, 620, 12, f"Part {page * page} begins here.")]
        + [(72, 600 - 20 * row, 12, f"Line {page * row * row} {long}") for row in range(3, 9)]
        + [(300, 30, 12, str(page))]
        for page in range(1, 6)
    ]
    document = pdf(*pages)
    assert document.text.count("Case 48213") == 1 and document.text.startswith("Case 48213\n\n")
    assert [f"Part {page * page} begins" in document.text for page in range(1, 6)] == [True] * 5
    assert document.notes == ("9 running heads, feet and page numbers were left out; each text is read once.",)


@pytest.mark.parametrize("pages", [1, 3, 7])
def test_identical_and_short_pages_are_all_read(pages: int) -> None:
    assert pdf(*[[(72, 700, 12, "Only this line.")]] * pages).text.count("Only this line.") == pages
    assert pdf(*[[(72, 700, 12, f"Exhibit {number}")] for number in range(pages)]).text.count("Exhibit") == pages
