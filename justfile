# Lint, then test.
default: lint test

# Style and types.
lint:
    ruff check .
    ruff format --check .
    mypy longmamba_mlx

# The quick tests; arguments go to pytest.
test *args:
    pytest {{args}}

# The full volumes, which take hours.
slow *args:
    pytest -m slow {{args}}

# Licences and known vulnerabilities of all dependencies.
dependencies:
    python packaging/check_dependencies.py

# Fuzz every reader of untrusted bytes: just fuzz --minutes 5
fuzz *args:
    python -m tests.security.fuzz {{args}}

# Reference pages from the code, then the site in build/site.
docs:
    python docs/reference/make.py
    mkdocs build --strict

# Figures and tables of the results, from docs/results/*.json.
figures:
    python benchmarks/figures.py
    python benchmarks/niah_tables.py
