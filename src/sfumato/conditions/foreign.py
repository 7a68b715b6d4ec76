"""The one way into transformers: local folders, safetensors, no code of the folder's, one sentence when it
fails."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sfumato.errors import ModelFileError, SettingsError, SfumatoError

LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""Options of every `from_pretrained`: nothing is fetched, and nothing from the folder is run."""
WEIGHTS: dict[str, Any] = {**LOCAL, "use_safetensors": True, "output_loading_info": True}
"""Those of models: no pickle, and what was missing is told."""


@contextmanager
def transformers_for(folder: Path) -> Generator[Any, None, None]:
    """transformers itself, silent, to open this folder of weights.

    Raises SettingsError where it is not installed, and ModelFileError for a folder without safetensors and
    for whatever transformers raises inside the block.
    """
    try:
        import transformers
        from transformers.utils import logging
    except ImportError:
        raise SettingsError(
            "pretrained encoders and CLIPs need transformers: pip install -c constraints.txt '.[hf]'"
        ) from None
    if not folder.is_dir():
        raise ModelFileError(f"{folder}: no such folder: give one that transformers wrote")
    if not any(folder.glob("*.safetensors")):
        pickled = next(iter(sorted(folder.glob("*.bin"))), None)
        found = "no safetensors" if pickled is None else f"a pickle ({pickled.name}), which is never opened"
        raise ModelFileError(f"{folder}: its weights are {found}: give a folder with model.safetensors")
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield transformers
    except SfumatoError:
        raise
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        raise ModelFileError(f"{folder}: transformers cannot open it ({words})") from error
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def check_whole(folder: Path, told: dict[str, Any]) -> None:
    """Raises ModelFileError where weights were missing, which transformers replaces by random ones.

    `told` is what `from_pretrained` says with `output_loading_info`; poolers, which are not used, may be
    missing.
    """
    missing = sorted(name for name in told["missing_keys"] if "pooler" not in name)
    if missing:
        raise ModelFileError(f"{folder}: its weights lack {missing[0]!r:.100}: use another copy")
