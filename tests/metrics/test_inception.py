"""FID from end to end, with Inception-v3 of random weights in a file; nothing downloads.

A network of random weights tests everything but the published numbers in it: the layout of the
file, the way of a picture to the network, the network itself, the distance.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from t2i_course import evaluation
from t2i_course.metrics import inception, picture_features

COUNT = 4  # pictures in a set: the network takes half a second for each


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the published file's layout, under the name that pytorch-fid looks for."""
    torch.manual_seed(0)
    network = torchvision.models.inception_v3(
        weights=None, num_classes=1008, aux_logits=False, init_weights=False
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
    path = tmp_path_factory.mktemp("hub") / "hub" / "checkpoints" / inception.OTHER_NAME
    path.parent.mkdir(parents=True)
    # pytorch-fid's network has torchvision's names, and torch-fidelity's has them, too.
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def extractor(weights_file: Path) -> inception.InceptionFeatures:
    return inception.InceptionFeatures(weights_file, device="cpu")


@pytest.fixture(scope="module")
def pytorch_fids_network(weights_file: Path) -> nn.Module:
    """pytorch-fid's Inception, loaded by pytorch-fid from its own cache."""
    from pytorch_fid.inception import InceptionV3

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(weights_file.parents[2]))
        return InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()


def some_pictures(seed: int, size: int) -> torch.Tensor:
    """Smooth random pictures, uint8 [COUNT, 3, size, size]; each seed has its own contrast."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(COUNT, 3, 6, 6, generator=generator)
    images = nn.functional.interpolate(coarse, size=size, mode="bicubic")
    return (128 + 30 * (seed + 1) * images).clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    return some_pictures(0, 299), some_pictures(1, 299)


@pytest.fixture(scope="module")
def features(extractor, pictures) -> list[np.ndarray]:
    return [picture_features.extract_features(extractor, images) for images in pictures]


# The same network, the same number


def test_same_input_gives_pytorch_fids_features(features, pictures, pytorch_fids_network):
    """Pictures of 299 pixels are not resized; the one difference left is how bytes are scaled."""
    network = pytorch_fids_network
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "normalize_input", False)  # pytorch-fid's own switches
        patch.setattr(network, "resize_input", False)
        theirs = [network((p.float() - 128) / 128)[0].flatten(1).numpy() for p in pictures]
    assert theirs[0].std() > 0.01, "features that are all alike would agree, too"
    for ours, other in zip(features, theirs, strict=True):
        assert ours == pytest.approx(other, rel=1e-4, abs=1e-4)


def test_whole_path_is_torchmetrics(extractor, pictures, features, weights_file):
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature_extractor_weights_path=str(weights_file))
    metric.update(pictures[0], real=True)
    metric.update(pictures[1], real=False)
    floats = pictures[1].float() / 127.5 - 1  # as a generator gives them
    found = picture_features.extract_features(extractor, floats)
    ours = evaluation.frechet(features[0], found, repeats=0, allow_few=True)
    assert 0.1 < ours.value == pytest.approx(metric.compute().item(), rel=1e-3)


# Names


def test_other_weights_are_named_and_their_distance_is_no_fid(extractor, weights_file):
    digest = hashlib.sha256(weights_file.read_bytes()).hexdigest()
    assert not extractor.published and extractor.fingerprint == digest[:16]
    assert "not the published" in extractor.name and digest[:8] in extractor.name
    assert "antialiased" in extractor.name and "299" in extractor.name
    assert "FID" not in extractor.metric and digest[:8] in extractor.metric


def test_address_and_hash_are_torch_fidelitys():
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    assert inception.WEIGHTS_URL == URL_INCEPTION_V3
    assert inception.WEIGHTS_URL.endswith(f"-{inception.WEIGHTS_SHA256[:8]}.pth")
    assert inception.OTHER_NAME.endswith(f"-{inception.WEIGHTS_SHA256[:8]}.pth")


# Errors


@pytest.mark.parametrize("content", ["text", "cut", "other", "code"])
def test_file_that_is_no_inception_is_refused(tmp_path, weights_file, content: str):
    path = tmp_path / "weights.pth"
    if content == "text":
        path.write_text("<html>not found</html>")
    elif content == "cut":
        path.write_bytes(weights_file.read_bytes()[:100_000])
    elif content == "other":
        torch.save(nn.Linear(2, 3).state_dict(), path)
    else:
        torch.save({"weight": Path("never built")}, path)  # an object that is no tensor
    with pytest.raises(ValueError, match=r"weights\.pth holds no weights of Inception-v3"):
        inception.InceptionFeatures(path, device="cpu")


def test_missing_local_file_is_named_with_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.pth.*--inception-weights"):
        inception.InceptionFeatures(tmp_path / "gone.pth")


# The download, from a server on this machine


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder served over HTTP in the place of GitHub, and an empty cache of torch.hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(inception, "WEIGHTS_SHA256", hashlib.sha256(b"weights").hexdigest())
    (tmp_path / "served").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        address = f"http://127.0.0.1:{running.server_port}"
        monkeypatch.setattr(inception, "WEIGHTS_URL", f"{address}/weights.pth")
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield tmp_path / "served" / "weights.pth"
        running.shutdown()


def test_weights_are_downloaded_once_to_torchs_own_cache(served, tmp_path):
    served.write_bytes(b"weights")
    path = inception.inception_weights(progress=False)
    assert path == tmp_path / "home" / "hub" / "checkpoints" / "weights.pth"
    assert path.read_bytes() == b"weights"
    served.unlink()
    assert inception.inception_weights() == path
    path.rename(path.with_name(inception.OTHER_NAME))  # as pytorch-fid would have it
    assert inception.inception_weights() == path.with_name(inception.OTHER_NAME)
    path.write_bytes(b"changed")
    with pytest.raises(ValueError, match=r"weights\.pth is not the published file any more"):
        inception.inception_weights()


@pytest.mark.parametrize("fault", ["missing", "other", "unreachable"])
def test_failed_download_says_so_and_keeps_nothing(served, monkeypatch, fault: str):
    if fault == "other":
        served.write_bytes(b"a page that asks to log in")
    if fault == "unreachable":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]  # nobody listens there
        monkeypatch.setattr(inception, "WEIGHTS_URL", f"http://127.0.0.1:{port}/weights.pth")
    with pytest.raises(OSError, match="could not be downloaded.*no FID.*--inception-weights"):
        inception.inception_weights(progress=False)
    assert not list((Path(torch.hub.get_dir()) / "checkpoints").glob("*.pth"))
