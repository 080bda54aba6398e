"""What of a web page is read: what its reader can come to see, and a note on what was left out."""

from __future__ import annotations

import io

import pytest

from longmamba_mlx.documents.formats.markup import read

HIDDEN = "Hidden parts of the page were left out."
WAITS = "Parts of the page that are hidden until a script shows them were read too."
FACTS = " ".join(["Fact."] * 50)
CONTROLS = "Navigation, buttons or menus of the page were left out."


@pytest.mark.parametrize(
    ("page", "text", "notes"),
    [
        ("<noscript><p>Fact</p></noscript><p>x</p>", "Fact\n\nx", ()),
        ("<p>x<noscript><p>The same  text</p></noscript><p>Says: The same text.", "x\n\nSays: The same text.", ()),
        ("<noscript><img alt='a ship'></noscript><p>Here [a ship] sails", "Here [a ship] sails", ()),
        ("<head><noscript><style>p{}</style></noscript></head>x", "x", ()),
        ("<body style='display:none'><p>Fact</p>", "Fact", ()),
        ("<html hidden><body hidden>Fact", "Fact", ()),
        ("<div id=app hidden><p>Fact</p></div><script>a</script>", "Fact", (WAITS,)),
        (f"<p>Wait</p><div style='visibility: hidden'>{FACTS}</div>", f"Wait\n\n{FACTS}", (WAITS,)),
        (f"<p>{'shown ' * 90}</p><div hidden>no</div>", ("shown " * 90).strip(), (HIDDEN,)),
        ("<p hidden>no<p>yes", "yes", (HIDDEN,)),
        ("<ul><li hidden>no<ul><li>no</ul><li>yes</ul>after", "- yes\n\nafter", (HIDDEN,)),
        ("<div><p hidden>no</div>yes", "yes", (HIDDEN,)),
        ("<table><tr><td hidden>no<td>yes<tr hidden><td>no</tr><tr><td>b</table>", "yes\n\nb", (HIDDEN,)),
        ("<dl><dt hidden>no<dd>yes</dl><b hidden>no</b><b style='DISPLAY : NONE'>no</b>", "yes", (HIDDEN,)),
        ("<p hidden=until-found>found</p>", "found", ()),
        ("<script src='a.js'/>alert(1)</script><p>text", "text", ()),
        ("<script src='a.js'/><p>text</p><script>no</script>", "text", ()),
        ("<style/>p > a {}</style>text", "text", ()),
        ("a<!-->b<!--->c<!-- x --!>d<!-- <p> -->e", "abcde", ()),
        ("<p>a<!-- never ends > b<p>c", "a b\n\nc", ()),
        ("<p>a<!never ends <b", "a<!never ends <b", ()),
        ("<head><title>t</title><p>no end of the head", "no end of the head", ()),
        ("<nav>menu</nav>text<button>b</button>", "text", (CONTROLS,)),
        ("a <textarea>typed</textarea>", "a typed", ()),
    ],
)  # fmt: skip
def test_what_is_read(page: str, text: str, notes: tuple[str, ...]) -> None:
    parsed = read(io.BytesIO(f"<!doctype html>{page}".encode()))
    assert parsed.text == text
    assert parsed.notes == notes
