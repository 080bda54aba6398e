"""Tables of RTF control words: character sets, characters, and groups without text."""

from __future__ import annotations

CHARSETS = {
    0: "cp1252", 77: "mac_roman", 128: "cp932", 129: "cp949", 130: "johab", 134: "gb18030", 136: "big5hkscs",
    161: "cp1253", 162: "cp1254", 163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251",
    222: "cp874", 238: "cp1250", 255: "cp850",
}  # fmt: skip
CHARACTERS = {
    "tab": "\t", "line": "\n", "lquote": "‘", "rquote": "’", "ldblquote": "“", "rdblquote": "”", "bullet": "•",
    "endash": "–", "emdash": "—", "enspace": " ", "emspace": " ", "qmspace": " ", "zwj": "\u200d", "zwnj": "\u200c",
}  # fmt: skip
SYMBOLS = {b"~": "\xa0", b"-": "\xad", b"_": "-", b"{": "{", b"}": "}", b"\\": "\\"}
# Groups that hold no text of the document. Those that begin with \* and are not known are passed over too.
SKIPPED = frozenset(
    "colortbl info pict objdata fldinst themedata colorschememapping datastore latentstyles listtable "
    "listoverridetable rsidtbl generator xmlnstbl bkmkstart bkmkend shppict nonshppict shprslt nonesttables sp upr xe "
    "tc rxe txe ftnsep ftnsepc ftncn aftnsep aftnsepc aftncn filetbl revtbl pgdsctbl falt panose fname template "
    "private background objclass objname pnseclvl mmathPict atnid atnref atnicn atndate atntime atnparent".split()
)
TEXT = frozenset(("shptxt", "dptxbxtext", "ud", "mr", "result", "fldrslt", "listtext", "pntext"))
ASIDES = {
    "footnote": "note", "annotation": "comment", "atnauthor": "author", "atrfstart": "skip",
    **{f"header{which}": "header" for which in ("", "l", "r", "f")},
    **{f"footer{which}": "footer" for which in ("", "l", "r", "f")},
}  # fmt: skip
