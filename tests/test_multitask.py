import itertools
import json

import numpy as np
import pytest
import torch

from t2i_course import data
from t2i_course.metrics.networks import train_network
from t2i_course.multitask import (
    BothWays,
    Captioner,
    UncertaintyWeighting,
    beam_search,
    bleu,
    load_captioner,
    prepare,
    redescription,
    surprises,
)
from t2i_course.scenes import drawing
from t2i_course.text_encoder import TextEncoder


@pytest.fixture(scope="module")
def encoder():
    return TextEncoder(device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return drawing.make_scenes(
        tmp_path_factory.mktemp("captioner") / "scenes", train=48, val=12, test=4, progress=False
    )


@pytest.fixture(scope="module")
def trained(folder, encoder, tmp_path_factory):
    """Overfit: 48 pictures, 240 steps."""
    return train_network(
        prepare, str(folder), tmp_path_factory.mktemp("weights") / "few", steps=240, batch_size=24,
        encoder=encoder, device="cpu", progress=False, command="test",
    )  # fmt: skip


def untrained(**changes):
    torch.manual_seed(0)
    return Captioner(**{"vocabulary": 20, "longest": 12, **changes}).eval()


@pytest.mark.parametrize("side", [16, 32, 64, 128])
def test_pictures_of_any_side_become_64_places(side):
    network = untrained(image_size=side)
    assert network.see(torch.rand(2, 3, side, side)).shape == (2, 64, 128)


@pytest.mark.parametrize("side", [8, 24, 48, 100])
def test_a_side_that_cannot_be_halved_to_8_is_an_error(side):
    with pytest.raises(ValueError, match=f"image_size {side}: choose one of 16, 32, 64"):
        untrained(image_size=side)


@pytest.mark.parametrize("decoder", ["transformer", "lstm"])
def test_no_word_is_guessed_from_words_that_come_later(decoder):
    network = untrained(decoder=decoder)
    seen = network.see(torch.rand(1, 3, 64, 64))
    words = torch.randint(20, (1, 9))
    other = words.clone()
    other[:, 5:] = (other[:, 5:] + 7) % 20
    before, after = network(seen, words), network(seen, other)
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-5)
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-2)


def test_an_unknown_decoder_is_an_error():
    with pytest.raises(ValueError, match="decoder 'gru': choose one of transformer, lstm"):
        untrained(decoder="gru")


@pytest.mark.parametrize("decoder", ["transformer", "lstm"])
def test_attention_is_shares_of_places_and_leaves_the_network_as_it_was(decoder):
    network = untrained(decoder=decoder)
    images, words = torch.rand(2, 3, 64, 64), torch.randint(20, (2, 7))
    with torch.no_grad():
        before = network(network.see(images), words)
        looked = network.attention(images, words)
        assert torch.equal(network(network.see(images), words), before)
    assert looked.shape == (2, 7, 8, 8) and (looked >= 0).all()
    assert torch.allclose(looked.sum(dim=(2, 3)), torch.ones(2, 7), atol=1e-5)
    assert not any(module._forward_hooks for module in network.modules())


def test_masked_cross_entropy_of_even_guesses_is_log_v_for_each_word():
    network = untrained()
    torch.nn.init.zeros_(network.next.weight)
    torch.nn.init.zeros_(network.next.bias)
    real = torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0]])
    with torch.no_grad():
        found = network.surprise(torch.rand(2, 3, 64, 64), torch.randint(20, (2, 6)), real)
    assert torch.allclose(found, np.log(20) * real[:, 1:].float())


# The beam: a toy model of 4 words, 0 to begin and 3 to end, whose next word hangs on the last two

LONGEST, END = 5, 3


def toy(seed):
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(4, 4, 4, generator=generator, dtype=torch.float64).mul(2).log_softmax(2)

    def following(words):
        before = words[:, -2] if words.shape[1] > 1 else torch.zeros_like(words[:, -1])
        return table[before, words[:, -1]]

    return following


def score(following, sequence):
    return sum(
        following(torch.tensor([sequence[:k]]))[0, sequence[k]].item()
        for k in range(1, len(sequence))
    )


def all_sequences():
    """Of at most 5 words, from 0, cut at the first end."""
    for rest in itertools.product(range(4), repeat=LONGEST - 1):
        cut = rest.index(END) + 1 if END in rest else len(rest)
        yield (0, *rest[:cut])


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_finds_the_best_of_all_sequences(seed):
    following = toy(seed)
    ranked = sorted({s: score(following, s) for s in all_sequences()}.items(), key=lambda p: -p[1])
    start = torch.zeros(2, 1, dtype=torch.long)
    words, scores = beam_search(following, start, END, LONGEST, 4**LONGEST)
    for row in range(2):
        for k in range(3):
            best, value = ranked[k]
            assert tuple(words[row, k, : len(best)].tolist()) == best
            assert (words[row, k, len(best) :] == END).all()
            assert scores[row, k].item() == pytest.approx(value)


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_of_width_1_is_greedy_and_a_wider_one_no_worse_here(seed):
    following, greedy = toy(seed), [0]
    while greedy[-1] != END and len(greedy) < LONGEST:
        greedy.append(int(following(torch.tensor([greedy])).argmax()))
    start = torch.zeros(1, 1, dtype=torch.long)
    words, scores = beam_search(following, start, END, LONGEST, 1)
    assert words[0, 0, : len(greedy)].tolist() == greedy
    assert scores.item() == pytest.approx(score(following, greedy))
    _, wide = beam_search(following, start, END, LONGEST, 4**LONGEST)
    assert wide[0, 0] >= scores[0, 0] - 1e-12
    with pytest.raises(ValueError, match="choose 1"):
        beam_search(following, start, END, LONGEST, 0)


def test_bleu_is_the_geometric_mean_of_the_shares_of_runs():
    assert bleu(["a red star"], [["a red star"]], 3) == pytest.approx(1)
    found = bleu(["a red star here"], [["a red heart here"]], 2)  # 3 of 4 words, 1 of 3 pairs
    assert found == pytest.approx((3 / 4 * 1 / 3) ** 0.5)


# Both directions


def test_uncertainty_weighting_is_least_where_the_noise_is_the_loss():
    weigh = UncertaintyWeighting()
    losses = {"caption": torch.tensor(0.7), "picture": torch.tensor(0.09)}
    assert weigh(losses).item() == pytest.approx(0.7 + 0.045)  # sigma 1: cross-entropy, half of mse
    optimizer = torch.optim.Adam(weigh.parameters(), lr=0.05)
    for _ in range(1000):
        optimizer.zero_grad()
        weigh(losses).backward()
        optimizer.step()
    variance = {name: s.exp().item() for name, s in weigh.log_variance.items()}
    assert variance == pytest.approx({"caption": 1.4, "picture": 0.09}, rel=1e-2)


def test_both_losses_reach_the_decoder_that_they_share_and_their_own_parts_alone():
    torch.manual_seed(0)
    network = BothWays(Captioner(20, 12, image_size=32))
    images, words = torch.rand(3, 3, 32, 32), torch.randint(20, (3, 6))
    real = torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0], [1] * 6])
    own = {"caption": network.captioner.picture, "picture": network.draw}
    for task, other in (("caption", "picture"), ("picture", "caption")):
        network.zero_grad()
        network.losses(images, words, real)[task].backward()
        shared = [weight.grad for weight in network.captioner.decoder.parameters()]
        assert sum(g is not None and bool((g != 0).any()) for g in shared) > len(shared) / 2
        assert all(weight.grad is not None for weight in own[task].parameters())
        assert all(weight.grad is None for weight in own[other].parameters())


def test_what_is_understood_of_a_caption_does_not_hang_on_its_padding():
    torch.manual_seed(0)
    network = BothWays(Captioner(20, 12, image_size=16)).eval()
    words, real = torch.randint(20, (1, 8)), torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0]])
    assert network.draw(torch.zeros(1, 128, 1, 1)).shape == (1, 3, 16, 16)
    alone = network.understand(words[:, :4], real[:, :4])
    assert torch.allclose(network.understand(words, real), alone, atol=1e-5)


def test_surprise_is_minus_the_logarithm_of_the_product_of_the_words_probabilities():
    network = untrained()
    images, words = torch.rand(2, 3, 64, 64), torch.randint(20, (2, 6))
    real = torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]])
    with torch.no_grad():
        found = network.surprise(images, words, real)
        assert found.shape == (2, 5) and (found[1, 3:] == 0).all()
        for row, length in ((0, 6), (1, 4)):
            product = 1.0
            for k in range(1, length):  # one word after the other, each from those before it alone
                logits = network(network.see(images[row : row + 1]), words[row : row + 1, :k])
                product *= logits[0, -1].softmax(dim=0)[words[row, k]].item()
            assert found[row].sum().item() == pytest.approx(-np.log(product), rel=1e-4)


def test_what_stands_behind_the_end_changes_nothing(encoder):
    network = untrained(vocabulary=len(encoder.tokenizer), longest=64)
    images = torch.rand(2, 3, 64, 64)
    measure = redescription(network, encoder)
    long = "a small red circle to the left of a large blue star"
    alone = measure(images[:1], ["a heart"])
    assert torch.allclose(measure(images, ["a heart", long])[:1], alone, rtol=1e-4)


def test_a_generator_gets_a_gradient_at_the_picture_and_the_captioner_none(trained, encoder):
    network, _ = load_captioner(trained, "cpu")
    images = torch.zeros(2, 3, 64, 64, requires_grad=True)
    measure = redescription(network, encoder)
    measure(images, ["a red star", "a blue heart"]).sum().backward()
    assert (images.grad.flatten(1).norm(dim=1) > 0).all()
    assert all(weight.grad is None and not weight.requires_grad for weight in network.parameters())
    assert not network.training


def test_following_the_gradient_makes_the_caption_more_probable(trained, encoder):
    network, _ = load_captioner(trained, "cpu")
    measure = redescription(network, encoder)
    captions = ["a red star", "a large blue heart above a small green cross"]
    images = torch.zeros(2, 3, 64, 64, requires_grad=True)
    before = measure(images, captions)
    (gradient,) = torch.autograd.grad(before.sum(), images)
    step = 1e-2 * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
    assert (measure(images - step, captions) < before).all()


def test_a_trained_captioner_knows_its_pictures_from_others(folder, trained, encoder):
    network, _ = load_captioner(trained, "cpu")
    packed = data.pack(folder, "train", 64, progress=False)
    captions = [packed.all_captions[row] for row in packed.caption_starts[:-1]]
    own = surprises(network, encoder, packed.images, captions)
    others = surprises(network, encoder, packed.images, captions[1:] + captions[:1])
    assert own.shape == (48,) and own.dtype == np.float32
    assert (own < others).mean() > 0.8  # untrained: a half


def test_descriptions_are_the_words_that_are_most_probable_one_by_one(folder, trained, encoder):
    network, _ = load_captioner(trained, "cpu")
    images = torch.from_numpy(np.array(data.pack(folder, "val", 64, progress=False).images[:3]))
    told = network.describe(images, encoder)
    assert len(told) == 3 and all(told)
    tokens = encoder.tokenize(told)["input_ids"]
    with torch.no_grad():
        seen = network.see(data.to_float(images))
        best = network(seen, tokens[:, :-1]).argmax(dim=2)  # [3, T - 1]
    ends = (tokens == encoder.tokenizer.sep_token_id).int().argmax(dim=1)
    for row, end in enumerate(ends):
        if tokens[row].tolist()[: end + 1].count(encoder.tokenizer.unk_token_id) == 0:
            assert best[row, :end].tolist() == tokens[row, 1 : end + 1].tolist()


def test_the_card_says_what_it_was_trained_on(trained):
    card = json.loads(trained.with_suffix(".json").read_text())
    assert card["model"] == "captioner" and card["data"] == "scenes" and card["steps"] == 240
    assert card["command"] == "test" and card["license"] == "Apache-2.0"
    own, other = (card["metrics"][f"nats a caption{of}, val"] for of in ("", " of another picture"))
    assert 0 < own < other


def test_a_captioner_comes_with_the_encoder_of_its_tokens(trained, encoder, monkeypatch):
    assert load_captioner(trained, "cpu")[1].fingerprint == encoder.fingerprint
    monkeypatch.setattr(TextEncoder, "fingerprint", "another")
    with pytest.raises(ValueError, match="reads by another encoder.*train anew"):
        load_captioner(trained, "cpu")


def test_training_again_gives_the_same_weights(folder, encoder, tmp_path):
    few = {"steps": 10, "batch_size": 16, "encoder": encoder, "device": "cpu", "progress": False}
    files = [train_network(prepare, str(folder), tmp_path / name, **few) for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()
