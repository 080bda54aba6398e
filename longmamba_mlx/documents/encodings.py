"""Names of text encodings, as users and web pages write them, and the Python codecs for them."""

from __future__ import annotations

import codecs
from contextlib import suppress

from longmamba_mlx.errors import UsageError

SINGLE_BYTE = (
    *("cp1252", "iso8859_15", "mac_roman", "cp850", "cp1250", "iso8859_2", "cp1254", "cp1257", "cp1251", "koi8_u"),
    *("iso8859_5", "cp866", "mac_cyrillic", "cp855", "cp1253", "iso8859_7", "cp1255", "cp1256", "iso8859_6", "cp874"),
)
MULTI_BYTE = ("cp932", "euc_jp", "gb18030", "big5hkscs", "cp949", "johab")
UNICODE = ("utf_8", "utf_16_le", "utf_16_be", "utf_32_le", "utf_32_be", "utf_16", "utf_32", "latin_1", "ascii")
_DECLARED = (
    *("iso8859_3", "iso8859_4", "iso8859_10", "iso8859_13", "iso8859_14", "iso8859_16", "cp1258", "cp437", "cp852"),
    *("mac_latin2", "mac_greek", "mac_turkish", "iso2022_jp", "iso2022_kr"),
)
# Codecs of Python that make no text of a file, or another than it holds.
_NO_ENCODINGS = ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf_7", "mbcs", "oem")

# Labels that mean a larger encoding, as browsers take them (WHATWG's Encoding Standard), or that Python does not know.
_MEANT = {
    "ascii": "cp1252", "us-ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874",
    "tis-620": "cp874", "windows-874": "cp874", "shift_jis": "cp932", "windows-31j": "cp932", "x-sjis": "cp932",
    "euc_kr": "cp949", "ks_c_5601-1987": "cp949", "x-windows-949": "cp949", "gb2312": "gb18030", "gbk": "gb18030",
    "x-gbk": "gb18030", "big5": "big5hkscs", "x-x-big5": "big5hkscs", "koi8-r": "koi8_u", "koi8": "koi8_u",
    "x-mac-cyrillic": "mac_cyrillic", "x-mac-roman": "mac_roman", "macintosh": "mac_roman", "unicode": "utf_16",
    "iso8859-8-i": "cp1255", "iso8859-8": "cp1255", "x-euc-jp": "euc_jp",
}  # fmt: skip
_SHOWN = {
    "gb18030": "GB18030", "big5hkscs": "Big5", "cp932": "Shift-JIS", "euc_jp": "EUC-JP", "johab": "Johab",
    "cp949": "EUC-KR",
    "koi8_u": "KOI8", "mac_roman": "Mac Roman", "mac_cyrillic": "Mac Cyrillic", "utf_16_le": "UTF-16 (little-endian)",
    "utf_16_be": "UTF-16 (big-endian)", "utf_32_le": "UTF-32 (little-endian)", "utf_32_be": "UTF-32 (big-endian)",
}  # fmt: skip


def codec_of(name: str) -> str:
    """The codec for an encoding's name: "latin-1" and "ISO-8859-1" -> "cp1252", "gbk" -> "gb18030".

    Raises LookupError for names that are not text encodings.
    """
    label = name.strip().lower()
    try:
        canonical = codecs.lookup(label).name
    except (LookupError, ValueError):
        canonical = label.replace("iso-8859", "iso8859")
    codec = codecs.lookup(_MEANT.get(label) or _MEANT.get(canonical) or canonical)
    found = codec.name.replace("-", "_")
    if not getattr(codec, "_is_text_encoding", True) or found in _NO_ENCODINGS:
        raise LookupError(name)
    return found


def asked_for(name: str) -> str:
    """Return the codec for a user's encoding name; "" stays "". Raises UsageError for an unknown name."""
    if not name.strip():
        return ""
    try:
        return codec_of(name)
    except (LookupError, ValueError, UnicodeError):
        hint = "For example utf-8, utf-16, windows-1252, windows-1251, shift_jis or gb18030."
        raise UsageError(f"Unknown encoding {name!r}.", hint=hint) from None


def shown(codec: str) -> str:
    """An encoding's name for people: "cp1252" -> "windows-1252"."""
    if codec in _SHOWN:
        return _SHOWN[codec]
    if codec.startswith("cp125"):
        return f"windows-{codec[2:]}"
    if codec.startswith("cp"):
        return f"code page {codec[2:]}"
    return codec.replace("iso8859", "ISO-8859").replace("iso2022", "ISO-2022").replace("_", "-").upper()


def preload() -> None:
    """Load every codec, for a process that may not open files later; those, too, that other labels are taken for."""
    for name in (*SINGLE_BYTE, *MULTI_BYTE, *UNICODE, *_DECLARED, "raw_unicode_escape"):  # the last is used by `email`
        codecs.lookup(name)
    for label in _MEANT:  # `codec_of` asks Python for a label's own codec first
        with suppress(LookupError):
            codecs.lookup(label)
