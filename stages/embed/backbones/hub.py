"""Where published weights lie: the local caches of huggingface_hub and torch.hub, else the network."""

from pathlib import Path

from stages.embed.backbones.weights import PROBE_SECONDS, check_reachable

NOT_FOUND = 404


def check_hub(name: str, model: str, repository: str, file: str) -> str | None:
    """The path of a hub file in the local cache; None where it is not there and the hub answers.

    Raises WeightsUnavailableError when the hub does not answer.
    """
    from huggingface_hub import hf_hub_url, try_to_load_from_cache

    cached = try_to_load_from_cache(repository, file)
    if isinstance(cached, str):
        return cached
    check_reachable(name, model, hf_hub_url(repository, file), _ask_hub)
    return None


def download_from_hub(name: str, model: str, repository: str, file: str) -> str:
    """The path of a hub file, downloaded where it is not in the local cache. Raises WeightsUnavailableError."""
    import huggingface_hub

    from stages.embed.backbones.weights import download_errors

    cached = check_hub(name, model, repository, file)
    with download_errors(name, model):
        return cached or huggingface_hub.hf_hub_download(repository, file)


def check_url(name: str, model: str, url: str) -> None:
    """Raises WeightsUnavailableError where torch.hub has no copy of a file and its server does not answer."""
    import torch

    if not (Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name).is_file():
        check_reachable(name, model, url)


def _ask_hub(url: str) -> None:
    """The headers, through huggingface_hub's own session and so its proxy and offline settings, without its retries.

    A missing file is no reason to stop: timm then looks for the same weights under another file name.
    """
    from huggingface_hub.utils import get_session

    answer = get_session().head(url, timeout=PROBE_SECONDS)
    if answer.status_code != NOT_FOUND:
        answer.raise_for_status()
