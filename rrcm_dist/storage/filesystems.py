"""fsspec's file systems, one a URL and process: their loop's thread and their connections do not survive a fork."""

import os
from typing import Any

from rrcm_dist.errors import InvalidInput

CONNECTIONS = 48
"""To one store, by one process."""

_opened: dict[tuple[int, str], tuple[Any, str]] = {}
"""By process and URL. What a process inherits is not its own: it stays here unused, and its connections unclosed."""


def filesystem_of(url: str) -> tuple[Any, str]:
    """This process' asynchronous file system for a URL, and the URL's path in it.

    Raises `InvalidInput` for a URL of unknown kind, or whose kind needs a package that is not installed.
    """
    key = (os.getpid(), url)
    if key not in _opened:
        _opened[key] = _open(url)
    return _opened[key]


def _open(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

    try:
        filesystem, path = url_to_fs(url, skip_instance_cache=True, use_listings_cache=False, **_options(url))
    except ImportError as error:
        package = "'rrcm-dist[s3]'" if url.startswith(("s3:", "s3a:")) else f"what fsspec asks for ({error})"
        raise InvalidInput(f"{url}: a package for this kind of store is missing: pip install {package}") from error
    except ValueError as error:
        raise InvalidInput(f"{url} names no store ({error}): give https://…, s3://bucket/… or a folder") from error
    return (filesystem if filesystem.async_impl else AsyncFileSystemWrapper(filesystem)), path.rstrip("/")


def _options(url: str) -> dict[str, Any]:
    """Retries and time limits are ours; bytes must come as they are stored."""
    if url.startswith(("http:", "https:")):
        import aiohttp

        client = {"trust_env": True, "timeout": aiohttp.ClientTimeout(total=None)}  # proxies are set by the environment
        return {"headers": {"Accept-Encoding": "identity"}, "client_kwargs": client}
    if url.startswith(("s3:", "s3a:")):
        retries = {"max_attempts": 1, "mode": "standard"}
        return {"config_kwargs": {"retries": retries, "connect_timeout": 10, "max_pool_connections": CONNECTIONS}}
    return {}
