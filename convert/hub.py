"""Model files from the Hugging Face Hub: only those a conversion reads."""

from __future__ import annotations

import re
from pathlib import Path

from longmamba_mlx.errors import ModelError

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_WANTED = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)
# The same weights again in Mistral's own layout.
_UNWANTED = ("consolidated*",)


def is_hub_id(text: str) -> bool:
    """True for "owner/name"."""
    return _ID.fullmatch(text) is not None


def download(repository: str, *, revision: str | None, offline: bool) -> Path:
    """The folder with the repository's files, in the Hub client's cache. Raises ModelError with a hint."""
    import huggingface_hub
    from huggingface_hub import errors

    offline = offline or huggingface_hub.constants.HF_HUB_OFFLINE
    try:
        folder = huggingface_hub.snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(_WANTED),
            ignore_patterns=list(_UNWANTED),
            local_files_only=offline,
        )
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{repository} asks you to accept its terms first",
            hint="accept them on its page, then log in with: hf auth login",
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        where = f" at revision {revision}" if revision else ""
        raise ModelError(
            f"no model {repository}{where} on the Hub", hint="check the spelling; private models need a login"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise ModelError(
            f"{repository} is not on this machine and the Hub was not reached",
            hint="connect once, or give the path of a model folder",
        ) from error
    except Exception as error:  # which HTTP library's errors come out changes with the client's version
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise ModelError(f"downloading {repository} failed: {reason}", hint="try again later") from error
    return Path(folder)
