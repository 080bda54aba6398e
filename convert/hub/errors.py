"""Turn whatever the Hub's client raises into one line and a hint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from longmamba_mlx.errors import LongMambaError, ModelError


@contextmanager
def hub_errors(repository: str, revision: str | None) -> Iterator[None]:
    """Raise ModelError for any other error in the block."""
    from huggingface_hub import errors

    try:
        yield
    except LongMambaError:  # ours, raised while the client reported its progress
        raise
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{repository} asks you to accept its terms first.",
            hint="Accept them on its page, then log in with: hf auth login",
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        where = f" at revision {revision}" if revision else ""
        raise ModelError(
            f"No model {repository}{where} on the Hub.", hint="Check the spelling; private models need a login."
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise not_here(repository) from error
    except Exception as error:  # which HTTP library's errors come out changes with the client's version
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        if re.search("Connect|Timeout", type(error).__name__):
            raise ModelError(
                f"{repository} is not on this machine and the Hub was not reached: {reason}",
                hint="Connect and try again, or give the path of a model folder.",
            ) from error
        raise ModelError(
            f"Downloading {repository} failed: {reason}",
            hint="Try again: files that are whole are kept; --offline takes what was downloaded before",
        ) from error


def not_here(repository: str) -> ModelError:
    """The error for a model that is not in the cache, without a network."""
    return ModelError(
        f"{repository} is not on this machine and the Hub was not reached.",
        hint="Connect once, or give the path of a model folder.",
    )
