"""No control code survives, wherever a stream is cut, and the text does."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from longmamba_mlx.documents.sanitise import (
    _CONTROLS,
    _SAFE,
    _SURROGATES,
    _clean_text,
    clean,
    last_cut,
    one_line,
    sanitise,
)

ESC, CSI, OSC, DCS, APC, PM, SOS, ST = "\x1b", "\x9b", "\x9d", "\x90", "\x9f", "\x9e", "\x98", "\x9c"
PAYLOADS = [
    f"{ESC}]52;c;ZWNobyBoaQ==\x07",
    f"{ESC}]52;c;ZWNobyBoaQ=={ESC}\\",
    f"{ESC}]52;c;!{ST}",
    f"{OSC}52;c;ZWNobyBoaQ=={ST}",
    f"{ESC}]0;owned\x07",
    f"{ESC}]2;owned{ESC}\\",
    f"{ESC}]1;icon\x07",
    f"{ESC}]4;1;rgb:ff/00/00\x07",
    f"{ESC}]7;file:///etc\x07",
    f"{ESC}]8;;https://example.org{ESC}\\click{ESC}]8;;{ESC}\\",
    f"{ESC}]9;notice\x07",
    f"{ESC}]10;?\x07",
    f"{ESC}]11;#000000\x07",
    f"{ESC}]50;font\x07",
    f"{ESC}]104\x07",
    f"{ESC}]133;A\x07",
    f"{ESC}]777;notify;a;b\x07",
    f"{ESC}]1337;File=inline=1:AAAA\x07",
    f"{ESC}]1337;SetMark\x07",
    f"{ESC}[2J",
    f"{ESC}[3J",
    f"{ESC}[H",
    f"{ESC}[1A{ESC}[2K",
    f"{ESC}[6n",
    f"{ESC}[c",
    f"{ESC}[>c",
    f"{ESC}[0m{ESC}[31m",
    f"{ESC}[8m",
    f"{ESC}[?1049h",
    f"{ESC}[?1049l",
    f"{ESC}[?25l",
    f"{ESC}[?2004l",
    f"{ESC}[?1000h",
    f"{ESC}[?1003h{ESC}[?1006h",
    f"{ESC}[20t",
    f"{ESC}[21t",
    f"{ESC}[8;1;1t",
    f"{ESC}[4h",
    f"{ESC}[!p",
    f"{ESC}[>4;1m",
    f"{ESC}[=1u",
    f"{ESC}c",
    f"{ESC}7{ESC}8",
    f"{ESC}(0",
    f"{ESC}#8",
    f"{ESC}=",
    f"{ESC}N{ESC}O",
    f"{ESC}P+q544e{ESC}\\",
    f"{ESC}P$q m{ESC}\\",
    f"{ESC}Pq#0;2;0;0;0{ESC}\\",
    f"{DCS}1$r0m{ST}",
    f"{ESC}_Gf=100;AAAA{ESC}\\",
    f"{APC}payload{ST}",
    f"{ESC}^private{ESC}\\",
    f"{PM}private{ST}",
    f"{ESC}X string{ESC}\\",
    f"{SOS}string{ST}",
    f"{CSI}2J{CSI}31m",
    f"{ESC}{ESC}{ESC}[2J",
    f"{ESC}[{ESC}[2J2J",
    "\x07\x07\x07",
    "safe\rfake",
    "safe\r\nnext",
    "rm\x08\x08ls",
    "\x0e\x0f",
    "\x05\x00\x7f",
    "\x84\x85\x8d",
    "abc\u202efdp.exe",
    "\u2066\u2067\u2068a\u2069\u202a\u202b\u202c\u202d",
    "\u200e\u200f\u061c",
    "\udc1b[2J",
    "\ud83d\ude00",
]
TERMINAL = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))} - {"\t", "\n"}
BIDI = {chr(code) for code in range(0x110000) if unicodedata.bidirectional(chr(code)) in ("LRE", "RLE", "LRO", "RLO")}
BIDI |= {chr(code) for code in range(0x110000) if unicodedata.bidirectional(chr(code)) in ("PDF", "LRI", "RLI", "FSI")}
BIDI |= {"\u2069", "\u200e", "\u200f", "\u061c"}
FORBIDDEN = TERMINAL | BIDI | {chr(code) for code in range(0xD800, 0xE000)}
ODD = "\xad\u200b\u2060\ufeff\ufffe\uffff\xa0\u1680\u202f\u205f\u2028\u2029"
ODD += "".join(map(chr, range(0x2000, 0x200B)))
RISKY = st.text(
    st.sampled_from("ab\r\n\t\f\x1b[]\\;0\x07\x9b\x9d\x85\b\b_\v\xa0m\u2028\u202e\ufeff\ud800é🙂"), max_size=30
)


def test_there_are_sixty_payloads_and_more() -> None:
    assert len(set(PAYLOADS)) == len(PAYLOADS) >= 60


@pytest.mark.parametrize("payload", PAYLOADS, ids=ascii)
def test_payloads_lose_their_sting_wherever_they_are_cut(payload: str) -> None:
    text = f"before {payload} after"
    whole = sanitise(text)
    assert not FORBIDDEN & set(whole)
    assert whole.startswith("before ") and whole.endswith(" after")
    for cut in range(len(text) + 1):
        assert sanitise(text[:cut]) + sanitise(text[cut:]) == whole
    assert "".join(sanitise(character) for character in text) == whole
    whole.encode("utf-8")


def test_every_character() -> None:
    """All of Unicode: forbidden ones vanish (half characters become U+FFFD), all others stay as they are."""
    for code in range(0x110000):
        character = chr(code)
        if 0xD800 <= code < 0xE000:
            assert sanitise(character) == "\ufffd"
        elif character in FORBIDDEN:
            assert sanitise(character) == ""
    kept = "".join(chr(code) for code in range(0x110000) if chr(code) not in FORBIDDEN)
    assert sanitise(kept) is kept or sanitise(kept) == kept


@settings(max_examples=200, deadline=None)
@given(RISKY | st.text(), RISKY | st.text())
@example("a\r", "\nb")
def test_a_stream_may_be_cut_anywhere(a: str, b: str) -> None:
    assert sanitise(a) + sanitise(b) == sanitise(a + b)
    assert sanitise(sanitise(a)) == sanitise(a)


@settings(max_examples=200, deadline=None)
@given(RISKY | st.text())
@example("\r\x00\n")
@example("a\f\n\fb\f")
def test_clean_is_safe_and_says_the_same_twice(text: str) -> None:
    cleaned = clean(text)
    assert not FORBIDDEN & set(cleaned)
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("a\r\nb", "a\nb"),
        ("a\rb", "a\nb"),
        ("a\n\rb", "a\n\nb"),
        ("a\r\r\nb", "a\n\nb"),
        ("a\x85b\u2028c\u2029d", "a\nb\nc\nd"),
        ("page\n\fnext", "page\nnext"),
        ("page\f\nnext", "page\nnext"),
        ("page\r\n\fnext", "page\nnext"),
        ("page\fnext", "page\nnext"),
        ("\ufeffa\ufeffb", "ab"),
        ("a\tb\vc", "a\tb\nc"),
        ("a\xa0b\u2009c\u202fd\u3000e", "a b c d\u3000e"),
        ("Var\xadnok 48\u200b21\u20603", "Varnok 48213"),
        ("Hello\x00\x00World", "Hello World"),
        ("\x1b[32mINFO\x1b[0m \x1b[1;38;5;208mok\x1b(B\x1b[m", "INFO ok"),
        ("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\ \x9b1mb\x9b0m", "alink b"),
        ("an escape \x1bHere and [31m there", "an escape Here and [31m there"),
        ("\x1b[\x1b[31m31m", "[31m"),
        ("N\bNA\bAM\bM\bME\bE _\bo_\bf g\b_it", "NAME of git"),
        ("👩\u200d👩\u200d👧 नमस्ते", "👩\u200d👩\u200d👧 नमस्ते"),
    ],
)
def test_clean(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@settings(max_examples=400, deadline=None)
@given(st.lists(RISKY | st.sampled_from(PAYLOADS), max_size=12), RISKY)
@example(["ab\b\bcd" * 3], "")
@example(["plain text \x1b[3"], "1m")
@example(["\x9d\x9b[00000", "000\x07"], "")
def test_where_a_text_may_be_cut(texts: list[str], more: str) -> None:
    text = "".join(texts)
    cut = last_cut(text)
    assert clean(text[:cut]) + clean(text[cut:] + more) == clean(text + more)


def test_a_text_can_nearly_always_be_cut() -> None:
    for text in (
        "plain " * 100,
        "\n" * 100,
        "\x1b[31mred\x1b[0m\n" * 100,
        "\x1bno sequence " * 400,
        "x\by" * 99 + "x" * 20,
    ):
        assert len(text) - last_cut(text) < 5000 and last_cut(text) > 0


def test_one_line() -> None:
    assert one_line("  a\n\tb\r\nc\x1b[2Jd ") == "a b c[2Jd"
    assert one_line("x" * 500) == "x" * 199 + "…"
    assert one_line("abc", limit=3) == "abc"
    assert one_line("\x1b\n") == ""


def test_every_character_is_safe_or_not() -> None:
    for code in range(0x110000):
        character = chr(code)
        unsafe = _CONTROLS.match(character) or _SURROGATES.match(character)
        assert (_SAFE.fullmatch(character) is None) == bool(unsafe), hex(code)
        assert (_clean_text().fullmatch(character) is None) == bool(unsafe or character in ODD), hex(code)
