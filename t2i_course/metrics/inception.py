"""Inception-v3 for FID: the Frechet distance of its features, as heusel2017fid defines it.

A FID is a number of one network with one set of weights: Inception-v3 (szegedy2016inception) as
TensorFlow shipped it on 2015-12-05, 2,048 features of the last pooling. torchmetrics runs it here;
torch-fidelity brings the network. Without the weights there is no FID, and no stand-in for it.

    extractor = InceptionFeatures()                # the published weights, downloaded once (96 MB)
    features = [extract_features(extractor, images) for images in (real, generated)]
    evaluation.frechet(*features, repeats=20)      # FID; more than 2,048 pictures in each set

State the program with the number: others resize to 299 pixels in other ways (notebook 05), and
pytorch-fid has another scale of bytes. Given the same input, the networks of all agree.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import torch
from torch import Tensor

from t2i_course import runtime

# Where torchmetrics would load them from; pytorch-fid offers the same file under another name.
WEIGHTS_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
OTHER_NAME = "pt_inception-2015-12-05-6726825d.pth"
WEIGHTS_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
REMEDY = (
    f"Download {WEIGHTS_URL} on a machine that can, and name the file with --inception-weights; or "
    "measure with features of the course's own network, which needs no download and is not called "
    "FID."
)


def inception_weights(progress: bool = True) -> Path:
    """Return the published weights, downloaded unless torchmetrics or pytorch-fid have done so.

    They lie in the `checkpoints` folder of `torch.hub.get_dir()`.

    Raises:
        OSError: the download failed, or brought something else, which is not kept.
        ValueError: the downloaded file has been changed since.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    target = folder / WEIGHTS_URL.rpartition("/")[2]
    for known in (target, folder / OTHER_NAME):
        if known.is_file():
            if runtime.file_hash(known) != WEIGHTS_SHA256:
                raise ValueError(f"{known} is not the published file any more: delete it")
            return known
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(WEIGHTS_URL, str(target), WEIGHTS_SHA256, progress)
    except (OSError, RuntimeError) as error:  # no network; another file
        raise OSError(
            f"the Inception weights could not be downloaded ({error}), and without them there is "
            f"no FID. {REMEDY}"
        ) from error
    return target


class InceptionFeatures:
    """Inception-v3 as an extractor (`picture_features.Extractor`).

    Attributes:
        published: whether the weights are the published ones. If not, the distance is no FID.
        metric: "FID", or what the distance is called with other weights.
    """

    width = 2048

    def __init__(
        self,
        weights: str | os.PathLike[str] | None = None,
        device: torch.device | str | None = None,
        progress: bool = True,
    ) -> None:
        """Load a file in the layout of torch-fidelity and pytorch-fid, or `inception_weights`.

        Raises:
            FileNotFoundError, OSError: the file is not there, or cannot be downloaded.
            ValueError: the file holds something else.
        """
        path = inception_weights(progress) if weights is None else Path(weights).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"no Inception weights at {path}. {REMEDY}")
        digest = runtime.file_hash(path)
        self.fingerprint = digest[:16]
        self.published = digest == WEIGHTS_SHA256
        self.device = runtime.choose_device() if device is None else torch.device(device)
        self.network = _load_network(path).to(self.device)
        kind = "TF weights" if self.published else "other weights, not the published ones,"
        self.name = f"Inception-v3 ({kind} {digest[:8]}), antialiased bilinear resize to 299 px"
        self.metric = "FID" if self.published else f"Frechet distance, Inception-v3 {digest[:8]}"

    def __call__(self, images: Tensor) -> Tensor:
        """Turn uint8 [B, 3, H, W] of any size into features, float32 [B, 2048], on the device."""
        return self.network(images.to(self.device))


def _load_network(path: Path) -> torch.nn.Module:
    """Build torchmetrics' Inception with the weights of a file."""
    from torchmetrics.image.fid import NoTrainInceptionV3  # takes seconds to import

    wrong = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError,
             AttributeError)  # fmt: skip
    try:
        torch.load(path, map_location="cpu", weights_only=True)  # torchmetrics unpickles anything
        return NoTrainInceptionV3("inception-v3-compat", ["2048"], str(path))
    except wrong as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{path} holds no weights of Inception-v3 in the layout of torch-fidelity and "
            f"pytorch-fid: it is damaged, or another kind of file ({reason})"
        ) from error
