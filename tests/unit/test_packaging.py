"""The wheel must hold every folder and every data file: setuptools leaves out what is not listed, silently."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def folder_of(package: str) -> Path:
    mapped = SETUPTOOLS["package-dir"]
    best = max((name for name in mapped if package == name or package.startswith(f"{name}.")), key=len)
    return ROOT / mapped[best] / package[len(best) + 1 :].replace(".", "/")


def test_every_package_is_listed() -> None:
    tops = [ROOT / name for name in ("longmamba_mlx", "convert", "metal_kernels", "tui")]
    there = {path.parent for top in tops for path in top.rglob("__init__.py")}
    there.add(ROOT / "longmamba_mlx/builtin/demo")  # data alone, for which setuptools would warn at every install
    assert there == {folder_of(package) for package in SETUPTOOLS["packages"]}


def test_every_data_file_is_listed() -> None:
    data = SETUPTOOLS["package-data"]
    for package in SETUPTOOLS["packages"]:
        folder = folder_of(package)
        others = {folder_of(name) for name in SETUPTOOLS["packages"]} - {folder}
        for path in folder.rglob("*"):
            if not path.is_file() or path.suffix in (".py", ".pyc") or any(o in path.parents for o in others):
                continue
            name = path.relative_to(folder).as_posix()
            patterns = [p.replace("**/", "*") for p in data.get(package, [])]
            assert any(fnmatch(name, p) for p in patterns), f"{package}: {name} is in no wheel"


def test_version_is_said_once() -> None:
    import longmamba_mlx

    assert PROJECT["project"]["version"] == longmamba_mlx.__version__
