"""Two spaces: one that pictures and captions share, and one that pictures can be drawn from.

`SharedSpace` has a picture encoder and a head on the text encoder's features; a symmetric InfoNCE
loss (oord2018cpc, radford2021clip) pulls a picture and its caption together and pushes all others
of the batch apart. `metrics.caption_matcher` trains the same class to measure generators; the
weights of `shared-space` may teach them.

`PictureVae` (kingma2014vae) gives every picture a Gaussian in place of a point, and a KL term keeps
these Gaussians near the standard normal, so that noise decodes to pictures. StackGAN's conditioning
augmentation is the same term on text features.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from t2i_course.augmentation import augment
from t2i_course.data import Batch, PackedCaptions
from t2i_course.evaluation import Estimate, wilson_interval
from t2i_course.metrics.networks import PictureNetwork, Setting, Task, load_network
from t2i_course.scenes import drawing
from t2i_course.scenes.mismatched_captions import contradicting_facts, facts_of
from t2i_course.scenes.truth_table import TruthTable
from t2i_course.scenes.wording import Facts, word_facts
from t2i_course.text_cache import embed_captions

NAME = "shared-space"
WIDTH = 128
CAPTIONS_EACH = 5  # captions of a picture that are learnt from
MET = 2  # of them, those that the picture meets in a step
MOVED = ("translation",)  # what is done to training pictures: no caption becomes false
HELD_OUT = 1000  # pictures and captions that retrieval is measured on


# One space for pictures and captions


def info_nce(
    pictures: Tensor, captions: Tensor, scale: Tensor | float, true: Tensor | None = None
) -> Tensor:
    """Symmetric InfoNCE: which caption belongs to a picture, and which picture to a caption?

        L = -1/2 [log softmax_j(s p_i . c_j) + log softmax_j(s p_j . c_i)] at j = i, mean over i

    radford2021clip, figure 3. With features that say nothing both terms are log of the number of
    candidates; aligned and orthogonal ones reach 0 as s grows.

    Args:
        pictures: [B, E], of length 1.
        captions: [C, E], of length 1; caption i < B belongs to picture i, those behind to none.
        scale: s = 1 / temperature.
        true: bool [C, B], which captions are true of which pictures: no negatives. None if unknown.
    """
    own = torch.arange(len(pictures), device=pictures.device)
    logits = scale * pictures.float() @ captions.float().T  # [B, C]
    if true is not None:
        others = true.T.clone()  # [B, C]
        others[own, own] = False
        logits = logits.masked_fill(others, -torch.inf)
    to_pictures = logits[:, : len(pictures)].T  # [B, B]
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(to_pictures, own)) / 2


class SharedSpace(nn.Module):
    """Features of pictures and of captions in one space, of length 1.

    Attributes:
        name: of the checkpoint's kind, and, once loaded, for the ledger.
        config: arguments of the constructor.
        fingerprint: the first 16 hex digits of the SHA-256 of the weights' file.
        encoder: name, fingerprint and pooling of the text encoder whose features it takes.
    """

    def __init__(
        self, text_dim: int, image_size: int = 64, width: int = WIDTH, name: str = NAME
    ) -> None:
        """Build it, with random weights.

        Args:
            text_dim: D, width of the text encoder's features.
            image_size: side of the pictures, pixels.
            width: E, of the common space.
            name: of the checkpoint's kind.
        """
        super().__init__()
        self.name, self.fingerprint, self.encoder = name, "", {}
        self.config = {"text_dim": text_dim, "image_size": image_size, "width": width}
        self.picture = PictureNetwork(width, image_size)
        self.text = nn.Sequential(
            nn.LayerNorm(text_dim), nn.Linear(text_dim, 512), nn.GELU(), nn.Linear(512, width)
        )
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())  # 1 / temperature

    def forward(self, images: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Turn images [B, 3, S, S] in [-1, 1] and text [C, D] into features [B, E] and [C, E]."""
        pictures = functional.normalize(self.picture(images).float(), dim=1)  # [B, E]
        captions = functional.normalize(self.text(text).float(), dim=1)  # [C, E]
        return pictures, captions

    def loss(self, images: Tensor, text: Tensor, true: Tensor | None = None) -> Tensor:
        """Symmetric InfoNCE of pictures and captions, see `info_nce`.

        Args:
            images: [B, 3, S, S] in [-1, 1].
            text: [C, D], features of a caption of each, and behind them of captions of none.
            true: bool [C, B], which captions are true of which pictures; None if unknown.
        """
        pictures, captions = self(images, text)
        return info_nce(pictures, captions, self.scale(), true)

    def scale(self) -> Tensor:
        """1 / temperature, at most 100."""
        return self.log_scale.exp().clamp(max=100)

    def embed_images(self, images: np.ndarray | Tensor) -> np.ndarray:
        """Turn uint8 [N, 3, S, S] into float32 [N, E] of length 1."""
        found = []
        for start in range(0, len(images), 250):
            part = torch.from_numpy(np.array(images[start : start + 250]))  # [B, 3, S, S]
            found.append(functional.normalize(self.picture.read(part), dim=1))  # [B, E]
        return torch.cat(found).cpu().numpy()

    def embed_text(self, features: np.ndarray | Tensor) -> np.ndarray:
        """Turn the text encoder's features [N, D] into float32 [N, E] of length 1."""
        features = torch.from_numpy(np.asarray(features).astype(np.float32))
        with torch.inference_mode():
            found = self.text(features.to(self.log_scale.device))
            return functional.normalize(found, dim=1).cpu().numpy()


def retrieval_both_ways(similarity: np.ndarray, true: np.ndarray) -> dict[str, Estimate]:
    """How often the nearest caption is true of a picture, and the nearest picture fits a caption.

    Args:
        similarity: [C, N], of captions and pictures.
        true: bool [C, N], which captions are true of which pictures.

    Returns:
        R@1 of "captions for a picture" and of "pictures for a caption", with Wilson's intervals,
        and "chance", the share that a blind choice gets.
    """
    captions, pictures = similarity.shape
    to_caption = true[similarity.argmax(axis=0), np.arange(pictures)].mean()
    to_picture = true[np.arange(captions), similarity.argmax(axis=1)].mean()
    shares = {
        "captions for a picture": (to_caption, pictures),
        "pictures for a caption": (to_picture, captions),
    }
    found = {
        name: Estimate(float(share), wilson_interval(float(share), count), count)
        for name, (share, count) in shares.items()
    }
    return found | {"chance": Estimate(float(true.mean()), None, true.size)}


# Its training


def hard_negatives(
    folder: Path, split: str, rows: np.ndarray, seed: int = 0
) -> tuple[list[str], list[Facts]]:
    """Word for captions of scenes, given by their rows, others that are false in one respect.

    None names a pair of shape and colour that training pictures lack: such captions would be false
    in every step, and the space would learn that they are never true.
    """
    shown, rng = drawing.read_instances(folder, split), random.Random(seed)
    entries, wrong = drawing.read_captions(folder, split), []
    for entry in (entries[row] for row in rows.tolist()):
        for _ in range(20):
            other = contradicting_facts(entry, shown[entry["image_id"]], rng, third=True)
            pairs = {(thing.get("shape"), thing.get("color")) for thing in other["objects"]}
            if not pairs & drawing.UNSEEN_PAIRS:
                break
        wrong.append(other)
    return [word_facts(other, rng) for other in wrong], wrong


def prepare(setting: Setting) -> Task:
    """A new shared space and its training, for `metrics.networks.train_network`.

    Each picture meets two of its five captions in a step, one after the other. Of scenes the facts
    say which captions are true of which pictures, and each picture brings a caption that
    contradicts it; of photos only the captions of the same photo are known to be true.
    """
    device, train, drawn = setting.device, setting.train, drawing.are_in(setting.folder)
    network = SharedSpace(setting.encoder.width, train.size)
    network.to(device, memory_format=torch.channels_last)
    counts = np.diff(train.caption_starts)[:, None]  # [N, 1]
    rows = train.caption_starts[:-1, None] + np.arange(CAPTIONS_EACH) % counts  # [N, K]
    captions, is_true, extra = [train.all_captions[row] for row in rows.ravel()], None, 0
    if drawn:
        facts, extra = facts_of(setting.folder, train), rows.size
        wrong, wrong_facts = hard_negatives(setting.folder, "train", rows[:, 0])
        captions += wrong  # [N K + N]
        shown = drawing.read_instances(setting.folder, "train")
        is_true = TruthTable(
            [facts[row] for row in rows.ravel()] + wrong_facts,
            [shown[number] for number in train.image_ids.tolist()],
        )
    text = np.asarray(embed_captions(setting.encoder, captions, progress=setting.progress))

    def loss(batch: Batch) -> Tensor:
        images, own = augment(batch.images, MOVED), batch.image_rows.numpy()
        pictures = network.picture(images.to(device, memory_format=torch.channels_last))
        pictures = functional.normalize(pictures.float(), dim=1)  # [B, E]
        order, losses = torch.rand(len(own), CAPTIONS_EACH).argsort(dim=1).numpy(), []
        for k in range(MET):
            chosen = own * CAPTIONS_EACH + order[:, k]  # [B]
            true = own[:, None] == own  # [B, B]
            if is_true is not None:
                chosen = np.concatenate([chosen, extra + own])  # [2 B]
                true = is_true(chosen, own)
            embedded = network.text(torch.from_numpy(text[chosen]).to(device))
            embedded = functional.normalize(embedded.float(), dim=1)  # [C, E]
            known = torch.from_numpy(true).to(device)
            losses.append(info_nce(pictures, embedded, network.scale(), known))
        return torch.stack(losses).mean()

    return Task(
        network, loss, lambda: measure(network, setting), 128, learning_rate=2e-3, steps=1800,
        half=True,
    )  # fmt: skip


def measure(network: SharedSpace, setting: Setting) -> dict[str, float]:
    """R@1 both ways among held-out pictures and a caption of each, where true captions count."""
    val = setting.val
    pictures, captions, true = held_out_pairs(setting.folder, val)
    features = embed_captions(
        setting.encoder, [val.all_captions[row] for row in captions], progress=setting.progress
    )
    similarity = network.embed_text(features) @ network.embed_images(val.images[pictures]).T
    found = retrieval_both_ways(similarity, true)
    return {
        f"R@1 of {name} among {len(pictures):,}, val": estimate.value
        for name, estimate in found.items()
    }


def held_out_pairs(
    folder: Path, held: PackedCaptions, split: str = "val", most: int = HELD_OUT
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose held-out pictures with a caption each, and say which captions are true of which.

    Args:
        folder: the data set.
        held: its split, packed.
        split: the split's name.
        most: pictures, at most; spread evenly over the split.

    Returns:
        Rows of the pictures [N], rows of their captions [N], and bool [N, N], captions by pictures.
    """
    pictures = np.unique(np.linspace(0, len(held) - 1, min(most, len(held))).round().astype(int))
    captions = np.asarray(held.caption_starts)[pictures]  # the first of each
    if not drawing.are_in(folder):
        return pictures, captions, np.eye(len(pictures), dtype=bool)
    facts, shown = facts_of(folder, held, split), drawing.read_instances(folder, split)
    table = TruthTable(
        [facts[row] for row in captions], [shown[i] for i in held.image_ids[pictures].tolist()]
    )
    every = np.arange(len(pictures))
    return pictures, captions, table(every, every)


def load_shared_space(
    name: str | os.PathLike[str] = NAME,
    device: torch.device | str | None = None,
    kind: str = NAME,
) -> SharedSpace:
    """Load a trained shared space, in eval mode; `kind` is that of its checkpoint.

    Raises:
        FileNotFoundError, ValueError: as `checkpoints.load_generator`.
    """
    network, card = load_network(name, {kind: SharedSpace}, device)
    network.encoder = card["encoder"]
    return network


# A space to draw from


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)) = (mu^2 + sigma^2 - 1 - log sigma^2) / 2, each, in nats.

    kingma2014vae, appendix B.

    Args:
        mean: mu, of any shape.
        log_variance: log sigma^2, of the same shape.
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance) / 2


def reparameterise(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    """Draw z = mu + sigma e from standard normal noise e, so that mu and sigma have gradients."""
    return mean + (log_variance / 2).exp() * noise


class PictureVae(nn.Module):
    """A variational autoencoder of pictures (kingma2014vae): a Gaussian for each picture."""

    def __init__(self, image_size: int = 64, latent: int = 64, width: int = 32) -> None:
        """Build the layers.

        Args:
            image_size: S, side of the pictures, pixels: 16, 32, 64, ...
            latent: Z, numbers that a picture becomes.
            width: channels at half the side; more further in.

        Raises:
            ValueError: another side, or a width that is no multiple of 8.
        """
        super().__init__()
        halvings = (image_size // 4).bit_length() - 1
        if halvings < 1 or image_size != 4 * 2**halvings or width % 8:
            raise ValueError(
                f"image_size {image_size}, width {width}: choose 8, 16, 32, 64, ... and a multiple "
                "of 8"
            )
        self.image_size, self.latent = image_size, latent
        channels = [width * min(k + 1, 4) for k in range(halvings)]  # from the outside in
        down: list[nn.Module] = []
        for before, after in zip([3, *channels], channels, strict=False):
            down += [nn.Conv2d(before, after, 4, 2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        deep = 16 * channels[-1]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(deep, 2 * latent))
        up: list[nn.Module] = [nn.Linear(latent, deep), nn.Unflatten(1, (channels[-1], 4, 4))]
        for before, after in zip(channels[::-1], channels[-2::-1], strict=False):
            up += [nn.GroupNorm(8, before), nn.SiLU(), nn.Upsample(scale_factor=2)]
            up += [nn.Conv2d(before, after, 3, padding=1)]
        up += [nn.GroupNorm(8, channels[0]), nn.SiLU(), nn.Upsample(scale_factor=2)]
        self.decoder = nn.Sequential(*up, nn.Conv2d(channels[0], 3, 3, padding=1))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Turn images [B, 3, S, S] in [-1, 1] into mean and log variance, [B, Z] each."""
        mean, log_variance = self.encoder(images).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-10, 10)

    def decode(self, z: Tensor) -> Tensor:
        """Turn z [B, Z] into images [B, 3, S, S]: the mean of a Gaussian of variance 1."""
        return self.decoder(z)

    def loss(
        self, images: Tensor, noise: Tensor, beta: float = 1.0, free_nats: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Both terms of the bound, in nats a picture; their sum is what is minimised.

            -log p(x | z) + beta KL(q(z | x) || N(0, 1)),  p(x | z) = N(x; decode(z), 1)

        kingma2014vae, equation 3; beta after higgins2017beta.

        Args:
            images: [B, 3, S, S] in [-1, 1].
            noise: [B, Z], standard normal.
            beta: weight of the KL term, which is returned with it.
            free_nats: KL of each of the Z numbers that costs nothing, on average over the batch
                (kingma2016iaf, appendix C.8): against collapse.
        """
        mean, log_variance = self.encode(images)
        drawn = self.decode(reparameterise(mean, log_variance, noise)).float()
        error = (drawn - images).square().sum(dim=(1, 2, 3)).mean() / 2  # but for a constant
        each = kl_to_standard_normal(mean, log_variance).mean(dim=0)  # [Z]
        return error, beta * each.clamp(min=free_nats).sum()

    def sample(self, noise: Tensor) -> Tensor:
        """Decode standard normal noise [B, Z]: images [B, 3, S, S] in [-1, 1]."""
        with torch.inference_mode():
            return self.decode(noise).float().clamp(-1, 1)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Encode images [B, 3, S, S] and decode the means."""
        with torch.inference_mode():
            return self.decode(self.encode(images)[0]).float().clamp(-1, 1)


class ConditioningAugmentation(nn.Module):
    """A Gaussian around a caption's features, to draw conditions from (zhang2017stackgan, 3.2)."""

    def __init__(self, text_dim: int, width: int) -> None:
        """Build it: text features [B, D] become conditions [B, W]."""
        super().__init__()
        self.parameters_of = nn.Linear(text_dim, 2 * width)

    def forward(self, text: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Draw conditions [B, W] by noise [B, W]; with them, the KL in nats of each caption [B]."""
        mean, log_variance = self.parameters_of(text).chunk(2, dim=1)  # [B, W] each
        kl = kl_to_standard_normal(mean, log_variance).sum(dim=1)  # [B]
        return reparameterise(mean, log_variance, noise), kl
