"""Write longmamba-mlx.mcpb, the bundle that Claude Desktop installs with a double click.

    python packaging/make_mcpb.py [FILE]

The bundle holds a manifest alone: `uvx` gets the package from PyPI when the server first starts.
"""

from __future__ import annotations

import json
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from longmamba_mlx import __version__  # noqa: E402 - the checkout's own

_TOOLS = {
    "read_document": "Read a file whole and remember it",
    "ask_document": "Ask the model that has read a document",
    "find_passages": "Search a document's text",
    "list_documents": "List what is remembered",
    "forget_document": "Forget a document",
}


def manifest(project: dict[str, object]) -> dict[str, object]:
    """The bundle's manifest, for the version of this checkout."""
    arguments = ["--from", f"longmamba-mlx[mcp]=={__version__}", "longmamba-mlx", "mcp"]
    return {
        "manifest_version": "0.3",
        "name": "longmamba-mlx",
        "display_name": "longmamba-mlx",
        "version": __version__,
        "description": project["description"],
        "author": {"name": "The longmamba-mlx developers"},
        "license": "MIT",
        "server": {
            "type": "python",
            "entry_point": "longmamba_mlx/__main__.py",
            "mcp_config": {"command": "uvx", "args": [*arguments, "--allow", "${user_config.folder}"]},
        },
        "tools": [{"name": name, "description": text} for name, text in _TOOLS.items()],
        "compatibility": {"platforms": ["darwin", "linux"], "runtimes": {"python": ">=3.11"}},
        "user_config": {
            "folder": {
                "type": "directory",
                "title": "Folder with documents",
                "description": "Only files in it are read.",
                "required": True,
                "default": "${HOME}/Documents",
            }
        },
    }


def main() -> None:
    """Write the bundle to the file named, else to dist/."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist" / "longmamba-mlx.mcpb"
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("manifest.json", json.dumps(manifest(project), indent=2) + "\n")
    print(target)


if __name__ == "__main__":
    main()
