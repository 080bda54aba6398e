"""Check the licences of all dependencies, and ask pip-audit for their known vulnerabilities.

    python packaging/check_dependencies.py [--licences-only]

Every dependency in pyproject.toml is checked as it is installed here: those of extras and indirect ones too. pip-audit
(`pip install pip-audit`) asks PyPI for vulnerabilities. Exit codes: 0 no problem; 1 a licence that is not allowed or
not known, a required package that is missing, or a vulnerability; 3 vulnerabilities could not be checked.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
NOT_ASKED = 3
# SPDX identifiers, and how packages without one spell them.
ALLOWED = {
    "MIT", "MIT-0", "MIT-CMU", "BSD", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "Apache-2.0", "ISC", "PSF-2.0",
    "Python-2.0", "CNRI-Python", "Zlib", "Unlicense", "CC0-1.0", "HPND", "OFL-1.1", "MPL-2.0",
    "LLVM-exception", "BSL-1.0",
}  # fmt: skip
SPELLINGS = {
    "mit license": "MIT", "the mit license": "MIT", "expat license": "MIT", "mit license (mit)": "MIT",
    "bsd license": "BSD", "bsd 3-clause": "BSD-3-Clause", "bsd 3-clause license": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause", "new bsd": "BSD-3-Clause", "bsd-3": "BSD-3-Clause",
    "bsd 2-clause license": "BSD-2-Clause", "apache software license": "Apache-2.0", "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0", "apache license, version 2.0": "Apache-2.0", "apache 2.0 license": "Apache-2.0",
    "apache license version 2.0": "Apache-2.0", "isc license (iscl)": "ISC", "isc license": "ISC",
    "python software foundation license": "PSF-2.0", "psf": "PSF-2.0", "zlib/libpng license": "Zlib",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0", "the unlicense (unlicense)": "Unlicense",
    "historical permission notice and disclaimer (hpnd)": "HPND", "boost software license 1.0 (bsl-1.0)": "BSL-1.0",
}  # fmt: skip
# Packages whose metadata says nothing that can be read, and what their licence file says.
LOOKED_UP = {"click-default-group": "BSD-3-Clause", "pypdfium2": "BSD-3-Clause AND Apache-2.0"}
_NO_LICENCES = ("OSI Approved", "DFSG approved")  # what classifiers say beside them


def wanted() -> tuple[dict[str, Distribution], dict[str, bool]]:
    """The installed distributions by name, and those not installed -> whether this package cannot do without."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    own, extras = canonicalize_name(project["name"]), project["optional-dependencies"]
    waiting = [(Requirement(text), True) for text in project["dependencies"]]
    waiting += [(Requirement(text), False) for texts in extras.values() for text in texts]
    found: dict[str, Distribution] = {}
    missing: dict[str, bool] = {}
    seen = set()
    while waiting:
        asked, needed = waiting.pop()
        name = canonicalize_name(asked.name)
        if name == own or (name, frozenset(asked.extras)) in seen or not _applies(asked, ""):
            continue
        seen.add((name, frozenset(asked.extras)))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            missing[name] = missing.get(name, False) or needed
            continue
        for text in found[name].requires or ():
            further = Requirement(text)
            if any(_applies(further, extra) for extra in ("", *asked.extras)):
                further.marker = None
                waiting.append((further, needed))
    return dict(sorted(found.items())), dict(sorted(missing.items()))


def _applies(asked: Requirement, extra: str) -> bool:
    return asked.marker is None or asked.marker.evaluate({**default_environment(), "extra": extra})


def licence_of(package: Distribution) -> str:
    """What a package says of its licence: an SPDX expression, its classifiers, or a text of one line; "" for none."""
    facts = package.metadata
    if expression := facts.get("License-Expression"):
        return str(expression)
    named = [text.rpartition(" :: ")[2] for text in facts.get_all("Classifier", []) if text.startswith("License ::")]
    named = [name for name in named if name not in _NO_LICENCES]
    text = (facts.get("License") or "").strip()
    return " AND ".join(named) or (text if "\n" not in text and len(text) < 100 else _first_words(text))


def _first_words(text: str) -> str:
    """The licence that a whole licence text begins with."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def is_allowed(licence: str) -> bool:
    """Whether an expression is allowed: all parts of an AND, one of an OR."""
    plain = SPELLINGS.get(licence.strip().lower(), licence.strip())
    if plain in ALLOWED:
        return True
    inner = plain[1:-1] if plain.startswith("(") and _closes_last(plain) else plain
    for word, decide in ((" OR ", any), (" AND ", all), (" WITH ", all), (" or ", any), (" and ", all)):
        parts = _split(inner, word)
        if len(parts) > 1:
            return decide(is_allowed(part) for part in parts)
    return inner != plain and is_allowed(inner)


def _closes_last(text: str) -> bool:
    """Whether the first bracket is closed by the last character."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return place == len(text) - 1
    return False


def _split(text: str, word: str) -> list[str]:
    """Split at a word that stands outside of brackets."""
    parts, depth, start = [], 0, 0
    for found in re.finditer(rf"[()]|{re.escape(word)}", text):
        if found.group() == word and depth == 0:
            parts.append(text[start : found.start()])
            start = found.end()
        depth += (found.group() == "(") - (found.group() == ")")
    return [*parts, text[start:]]


def licence_problems(found: dict[str, Distribution]) -> Iterator[str]:
    """Print the licence of every package; yield those that are not allowed or not known."""
    for name, package in found.items():
        licence = LOOKED_UP.get(name) or licence_of(package)
        good = is_allowed(licence)
        print(f"{'ok     ' if good else 'NOT OK '} {name} {package.version}: {licence or 'says nothing'}")
        if not good:
            yield f"{name}: {licence or 'no licence'} is not one of those allowed"


def audit(found: dict[str, Distribution]) -> tuple[list[str], list[str], str]:
    """Known vulnerabilities, a line each; the packages that could not be checked, and why."""
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder) / "requirements.txt"
        versions = {name: Version(package.version).public for name, package in found.items()}
        asked.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()))
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", "--requirement", str(asked), "--no-deps", "--disable-pip",
             "--progress-spinner", "off", "--format", "json"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    try:
        rows = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return [], list(found), _why(done.stderr)
    answered = {row["name"]: row["vulns"] for row in rows if "vulns" in row}
    holes = [f"{name} {versions.get(name, '')}: {hole['id']}" for name, of in answered.items() for hole in of]
    return holes, [name for name in found if name not in answered], "PyPI does not know them in these versions"


def _why(said: str) -> str:
    """Why pip-audit gave no answer, from what it wrote to stderr."""
    if importlib.util.find_spec("pip_audit") is None:
        return "pip-audit is not installed (pip install pip-audit)"
    last = (said.strip().splitlines() or ["pip-audit printed nothing"])[-1]
    if re.match(r"(requests|urllib3)\.exceptions\.\w*(Connection|Timeout|Proxy|SSL|MaxRetry)", last):
        return "PyPI could not be reached"
    return last if len(last) <= 160 else f"{last[:157]}..."


def main() -> int:
    parser = argparse.ArgumentParser(description="Check licences and known vulnerabilities of all dependencies.")
    parser.add_argument("--licences-only", action="store_true", help="check licences only, without the network")
    given = parser.parse_args()
    found, missing = wanted()
    problems = list(licence_problems(found))
    problems += [f"{name}: required and not installed" for name, needed in missing.items() if needed]
    optional = [name for name, needed in missing.items() if not needed]
    print(f"{len(found)} packages. Optional and not installed, so not checked: {', '.join(optional) or 'none'}.")
    holes, unasked, why = ([], [], "") if given.licences_only else audit(found)
    for line in [*problems, *holes]:
        print(f"Error: {line}", file=sys.stderr)
    if problems or holes:
        return 1
    if unasked:
        count = f"{len(unasked)} of {len(found)} packages were NOT checked for vulnerabilities"
        print(f"Error: Licences are in order, but {count}: {why}.", file=sys.stderr)
        return NOT_ASKED
    print("Licences are in order." if given.licences_only else "Licences are in order; no known vulnerability.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
