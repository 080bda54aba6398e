# Lint and test by default.
default: lint test

lint:
    ruff check .
    ruff format --check .
    mypy longmamba_mlx

test *args:
    pytest {{args}}

slow:
    pytest -m slow

# Licences and known vulnerabilities of all dependencies.
dependencies:
    python packaging/check_dependencies.py

fuzz *args:
    python -m tests.security.fuzz {{args}}

docs:
    python docs/reference/make.py
    mkdocs build --strict

figures:
    python benchmarks/figures.py
    python benchmarks/niah_tables.py
