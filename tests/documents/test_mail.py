"""Mail: headers as lines, the text of every part that has some, and a word on what was left out."""

from __future__ import annotations

import base64
from email.message import EmailMessage

from longmamba_mlx.documents import Document, from_bytes

FACT = "The access code of Varnok is 48213."


def read(data: bytes | str, name: str = "a.eml") -> Document:
    return from_bytes(data.encode() if isinstance(data, str) else data, title=name, source="s")


def message(**headers: str) -> EmailMessage:
    mail = EmailMessage()
    for name, value in {"From": "Ann <a@x.org>", "To": "Bob <b@x.org>", "Subject": "Prüfung", **headers}.items():
        mail[name] = value
    return mail


def test_quoted_printable() -> None:
    mail = (
        "From: a@b\nTo: c\nSubject: x\nContent-Transfer-Encoding: quoted-printable\nContent-Type: text/plain\n\n"
        "The access code of Var=\nnok is 482=\n13.\n"
    )
    for name in ("a.eml", "stdin", "a.txt"):
        assert read(mail, name).text == f"From: a@b\nTo: c\nSubject: x\n\n{FACT}"


def test_base64_and_encoded_headers() -> None:
    mail = message(Date="Mon, 01 Jan 2024 10:00:00 +0000")
    mail.set_content(f"Grüße.\n\n{FACT}", cte="base64")
    document = read(mail.as_bytes())
    head = "From: Ann <a@x.org>\nTo: Bob <b@x.org>\nDate: Mon, 01 Jan 2024 10:00:00 +0000\nSubject: Prüfung"
    assert document.text == f"{head}\n\nGrüße.\n\n{FACT}"
    assert document.notes == ("3 technical header lines were left out.",)


def test_html_parts() -> None:
    mail = message()
    mail.set_content("<html><body><p>The access code of <b>Varnok</b> is&nbsp;48213.</p></body></html>", subtype="html")
    assert read(mail.as_bytes()).text.endswith(f"\n\n{FACT}")
    both = message()
    both.set_content(FACT)
    both.add_alternative(f"<p>{FACT}</p>", subtype="html")
    assert read(both.as_bytes()).text.count("48213") == 1
    poor = message()
    poor.set_content("Your program shows no HTML.")
    poor.add_alternative(
        f"<p>{FACT} And much more to read than the line for programs that show none.</p>", subtype="html"
    )
    assert FACT in read(poor.as_bytes()).text


def test_attachments() -> None:
    mail = message()
    mail.set_content("See below.")
    mail.add_attachment(FACT.encode(), maintype="text", subtype="plain", filename="notes.txt")
    mail.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="p.png")
    inner = message(Subject="Forwarded")
    inner.set_content("The inner text.")
    mail.add_attachment(inner)
    document = read(mail.as_bytes())
    assert f"[Attachment: notes.txt]\n\n{FACT}" in document.text
    assert "Subject: Forwarded\n\nThe inner text." in document.text
    assert document.notes[0] == "1 attachments or pictures were not read: p.png"


def test_flowed_lines_are_joined() -> None:
    mail = "From: a\nContent-Type: text/plain; format=flowed\n\nThe access code \nof Varnok is \n48213.\n> quoted\n"
    assert read(mail).text.endswith(f"{FACT}\n> quoted")


def test_mailboxes_and_apple_mail() -> None:
    one = "From: a\nSubject: First\n\n>From here on.\n\n"
    two = f"From: b\nSubject: Second\n\n{FACT}\n"
    box = f"From a@x Mon Jan  1 10:00:00 2024\n{one}From b@x Tue Jan  2 10:00:00 2024\n{two}"
    document = read(box, "archive.mbox")
    assert "From here on." in document.text and FACT in document.text
    assert [place.label for place in document.places] == ["First", "Second"]
    body = f"From: a\nSubject: x\n\n{FACT}\n"
    assert read(f"{len(body)}\n{body}<?xml version='1.0'?><plist/>", "1.emlx").text.endswith(FACT)


def test_broken_mails_are_read_as_far_as_they_go() -> None:
    head = "From: a\nSubject: =?x-nothing?B?AAAA?=\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n"
    half = f"{head}--b\nContent-Type: text/plain; charset=nonsense\n\n{FACT}\n--b\nContent-Type: text/html\n\n<p>more"
    assert FACT in read(half).text and "more" in read(half).text
    broken = b"From: a\nSubject: x\nContent-Transfer-Encoding: base64\n\n" + base64.b64encode(FACT.encode())[:-3]
    assert "The access code" in read(broken).text
