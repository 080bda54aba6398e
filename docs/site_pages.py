"""MkDocs hooks: the pages that lie above docs/ on GitHub (CONTRIBUTING.md, ...) are pages of the site, too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
ABOVE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "SECURITY.md": "security.md"}

CODE = re.compile(r"\[([^\]\[]+)\]\((?:\.\./)+(?:tests|examples|longmamba_mlx|benchmarks|training|packaging)/[^)]*\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages above docs/."""
    for source, target in ABOVE.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as the site has them: `docs/x.md` from above, `../SECURITY.md` to above."""
    if page.file.src_uri in ABOVE.values():
        markdown = re.sub(r"\]\(docs/decisions\)", "](decisions/README.md)", markdown)
        markdown = re.sub(r"\]\(docs/", "](", markdown)
    for source, target in ABOVE.items():
        markdown = re.sub(rf"\]\(((?:\.\./)*)\.\./{re.escape(source)}", rf"](\1{target}", markdown)
        markdown = markdown.replace(f"]({source}", f"]({target}")
    # Code lies in the repository alone: a link to it becomes its name.
    return CODE.sub(r"\1", markdown)
