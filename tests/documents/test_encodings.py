"""Encodings are told from the text, a guess is said, and what the user names is believed."""

from __future__ import annotations

import pytest

from longmamba_mlx.documents import from_bytes, read_documents
from longmamba_mlx.documents.encodings import asked_for, codec_of, shown
from longmamba_mlx.errors import DocumentError, UsageError

FACT = "The access code of Varnok is 48213."
ENGLISH = "Keep the pressure steady and the valves open, said the old keeper, and wait for the tide to turn. "


def read(data: bytes, encoding: str = "") -> tuple[str, tuple[str, ...]]:
    document = from_bytes(data, title="a.txt", source="s", encoding=encoding)
    return document.text, document.notes


@pytest.mark.parametrize("character", "£°éïèñüöçàô–—’“”…€®©½«»§·")
def test_one_western_character_in_english(character: str) -> None:
    """At every length, and at every position: between words, within one, beside a digit."""
    for text in (
        f"Keep at 20{character}C. {FACT}",
        f"Price: {character}100 for all. {FACT}",
        f"The caf{character} is shut. {FACT}",
        *(ENGLISH * 3 + ENGLISH[:cut] + character + ENGLISH[cut:] for cut in range(0, len(ENGLISH), 7)),
        ENGLISH * 150 + character + ENGLISH * 150,
    ):
        found, notes = read(text.encode("cp1252"))
        assert found == text
        assert notes == ("Read as windows-1252; --encoding NAME reads it otherwise.",)


LEGACY = [
    ("cp1252", "El niño comió mañana en España; ¿qué más quería?"),
    ("cp1252", "L’été à Paris, l’œuvre d’un maître déçu."),
    ("cp1252", "ÉCOLE NORMALE SUPÉRIEURE, MÜNCHEN, GRÖSSE"),
    ("cp1250", "Zażółć gęślą jaźń, powiedział stary żeglarz."),
    ("iso8859_2", "Příliš žluťoučký kůň úpěl ďábelské ódy."),
    ("iso8859_2", "Árvíztűrő tükörfúrógép, mondta az öreg őr."),
    ("cp1250", "Čovjek je šetao uz obalu i pričao o životu, đacima i kući."),
    ("cp1254", "Işık ılık süt içti, çok güzel bir şeydi bu."),
    ("cp1257", "Ąžuolas, šešėlis ir žąsys prie ežero."),
    ("cp1251", "ГЛАВА ПЕРВАЯ. Все счастливые семьи похожи друг на друга."),
    ("koi8_r", "Привет, мир"),
    ("iso8859_5", "Все счастливые семьи похожи друг на друга."),
    ("cp866", "Все счастливые семьи похожи друг на друга."),
    ("mac_cyrillic", "Все счастливые семьи похожи друг на друга."),
    ("iso8859_7", "Καλημέρα κόσμε, τι κάνεις σήμερα;"),
    ("cp1255", "בראשית ברא אלהים את השמים ואת הארץ"),
    ("cp1256", "السلام عليكم ورحمة الله وبركاته"),
    ("cp874", "สวัสดีครับ วันนี้อากาศดีมาก"),
    ("cp850", "Das Mädchen aß übermäßig viele Äpfel."),
    ("mac_roman", "“Hello,” he said — it’s fine, and we’re here."),
    ("iso8859_15", "Prix : 10 € pour le cœur"),
    ("euc_jp", "吾輩は猫である。名前はまだ無い。"),
    ("iso2022_jp", "吾輩は猫である。名前はまだ無い。"),
    ("gb18030", "这是一个关于中国历史的故事,大家都知道。"),
    ("big5", "這是一個關於中國歷史的故事,大家都知道。"),
    ("cp949", "모든 국민은 인간으로서의 존엄과 가치를 가진다."),
    ("utf-16-le", "Hello world, this has no mark."),
    ("utf-16-be", "Привет, мир. Как дела?"),
    ("utf-16-le", "道可道,非常道。\n名可名,非常名。\n無名天地之始"),
    ("utf-32-le", "Hello"),
    ("utf-16-le", "Hi"),
    ("utf-16-be", "a"),
    ("utf-32-be", "Καλημέρα κόσμε"),
]


@pytest.mark.parametrize(("encoding", "text"), LEGACY, ids=[f"{e}-{i}" for i, (e, _) in enumerate(LEGACY)])
def test_texts_that_tell_no_encoding(encoding: str, text: str) -> None:
    found, notes = read(text.encode(encoding))
    assert found == text
    assert len(notes) == 1 and notes[0].startswith("Read as ")


def test_damaged_utf8_stays_utf8() -> None:
    text = "Größe über alles, naïve café."
    found, notes = read(text.encode() + b" \xff\xe9 end")
    assert found == text + " \ufffd\ufffd end"
    assert notes == ("2 places are not UTF-8, shown as \ufffd; --encoding NAME reads it otherwise.",)


def test_texts_that_say_their_encoding() -> None:
    for head in ('<?xml version="1.0" encoding="koi8-r"?>\n<rss>', "#!/bin/sh\n# -*- coding: koi8-r -*-\n"):
        text = f"{head}Я и ты"
        assert read(text.encode("koi8_r")) == (text, ())


def test_the_encoding_asked_for_is_not_questioned() -> None:
    assert read("Привет".encode("cp1251"), "windows-1251") == ("Привет", ())
    assert read("Ï\xf0".encode("cp1252"), "cp1251") == ("Пр", ())
    assert read("日本".encode("utf-16-be"), "utf-16-be") == ("日本", ())
    text, notes = read(b"caf\xe9", "utf-8")
    assert text == "caf\ufffd" and notes[0].startswith("1 place is not UTF-8")
    page = "<html><meta charset=utf-8><p>Привет".encode("koi8_r")
    assert from_bytes(page, title="a.html", source="s", encoding="koi8-r").text == "Привет"


@pytest.mark.parametrize("name", ["klingon", "rot13", "base64", "unicode_escape", "utf-7", "\x00", "ü", "idna"])
def test_unknown_encodings(name: str) -> None:
    with pytest.raises(UsageError, match="Unknown encoding") as caught:
        read_documents(["nothing.txt"], encoding=name)
    assert caught.value.hint


def test_names_of_encodings() -> None:
    names = {"latin-1": "cp1252", "ISO-8859-1": "cp1252", "gb2312": "gb18030", "x-sjis": "cp932", "tis-620": "cp874",
             "KOI8-R": "koi8_u", "macintosh": "mac_roman"}  # fmt: skip
    assert {name: codec_of(name) for name in names} == names
    assert asked_for(" ") == "" and asked_for("UTF8") == "utf_8" and codec_of(codec_of("gbk")) == "gb18030"
    assert (shown("cp1252"), shown("iso8859_2"), shown("cp866")) == ("windows-1252", "ISO-8859-2", "code page 866")


@pytest.mark.parametrize("data", [bytes(range(128, 256)) * 20, b"\x01\x02\x03\x04\x05\x06" * 50, b"text\x00" * 50])
def test_what_is_no_text(data: bytes) -> None:
    with pytest.raises(DocumentError, match="is not text") as caught:
        read(data)
    assert "--encoding" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("shift_jis", "テスト"), ("x-sjis", "テスト"), ("big5", "我是貓"), ("euc-kr", "나는"),
        ("ks_c_5601-1987", "나는"), ("gb2312", "我是"), ("koi8-r", "Я кот"), ("tis-620", "แมว"),
        ("iso-8859-8", "חתול"), ("iso-8859-9", "ağaç"),
        ("macintosh", "café"), ("iso-8859-1", "café"),
    ],
)  # fmt: skip
def test_a_page_is_read_as_it_declares(label: str, text: str) -> None:
    """In the child process that takes it apart, which may not open the files of a codec."""
    codec = {"x-sjis": "shift_jis", "ks_c_5601-1987": "euc-kr"}.get(label, label)
    page = f"<!doctype html><meta charset={label}><p>".encode() + text.encode(codec)
    found = from_bytes(page, title="a.html", source="s")
    assert (found.text, found.notes) == (text, ())
