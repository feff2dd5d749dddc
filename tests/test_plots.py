import io
import warnings

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from t2i_course import plots

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def pixels_of(figure):
    """The figure as uint8 [H, W, 3], as a notebook's PNG would hold it before cropping."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing glyph warns
        figure.savefig(file, format="png", dpi=figure.dpi)
    return np.asarray(Image.open(file).convert("RGB"))


def holds(picture, part):
    """Whether `part` [h, w, 3] occurs in `picture`, pixel for pixel."""
    height, width = part.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(picture, (height, width), axis=(0, 1))
    return bool((windows == part.transpose(2, 0, 1)).all(axis=(2, 3, 4)).any())


def random_images(*shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (*shape, 3, 16, 16), generator=generator, dtype=torch.uint8)


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_floats_and_bytes_give_the_same_pixels():
    images = random_images(4)
    assert np.array_equal(plots.to_pixels(images), plots.to_pixels(images / 127.5 - 1))
    ends = torch.tensor([-1.0, 1.0, -3.0, 3.0]).view(1, 1, 2, 2).expand(1, 3, 2, 2)
    assert plots.to_pixels(ends)[0, ..., 0].tolist() == [[0, 255], [0, 255]]


def test_other_shapes_and_numbers_that_are_not_finite_are_refused():
    for shape in ((3, 8, 8), (2, 1, 8, 8), (0, 3, 8, 8)):
        with pytest.raises(ValueError, match=r"\[N, 3, H, W\]"):
            plots.to_pixels(torch.zeros(shape))
    with pytest.raises(ValueError, match="finite"):
        plots.image_grid(torch.full((1, 3, 4, 4), float("nan")))


@pytest.mark.parametrize("columns", [1, 3, 8])
def test_no_picture_of_a_grid_is_stretched_by_rounding(columns):
    images = random_images(8)
    drawn = pixels_of(plots.image_grid(images, columns=columns, titles=["a b"] * 8))
    rows = -(-8 // columns)
    assert drawn.shape[1] == columns * 20 and (drawn.shape[0] - rows * 20) % rows == 0
    assert all(holds(drawn, image.permute(1, 2, 0).numpy()) for image in images)


def test_a_word_is_broken_only_where_it_would_lie_on_the_next_title():
    figure = plots.image_grid(torch.zeros(1, 3, 60, 60), ["a background"])  # 8 letters
    assert texts(figure) == ["a\nbackground"]
    figure = plots.image_grid(torch.zeros(1, 3, 32, 32), ["a background"])  # 5
    assert "background" not in texts(figure)[0]


@pytest.mark.parametrize("columns", [4, 2])
def test_no_text_leaves_the_figure_or_lies_on_a_picture(columns):
    images = torch.zeros(4, 3, 64, 64)
    long = "on the right there is a little blue star, on the left a big red disc"
    figure = plots.image_grid(images, [long] * 4, columns, ["noise 0", "noise 1"][: 4 // columns])
    figure.canvas.draw()
    pictures = [axes.get_window_extent() for axes in figure.axes]
    for axes in figure.axes:
        for text in axes.texts:
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.y0 >= 0
            assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
            assert not any(box.overlaps(picture) for picture in pictures)


def test_wrong_number_of_titles_is_refused():
    with pytest.raises(ValueError, match="3 titles"):
        plots.image_grid(random_images(4), ["a"] * 3, columns=2)
    with pytest.raises(ValueError, match="row titles"):
        plots.image_grid(random_images(4), columns=2, row_titles=["a"])


def test_captions_with_other_scripts_and_dollars_draw_without_a_warning():
    figure = plots.image_grid(
        random_images(2), ["红色 circle \N{GRINNING FACE}", "costs $5 or $6_x"]
    )
    pixels_of(figure)
    first, second = (text.replace("\n", "") for text in texts(figure))
    assert first.startswith("??") and first.isascii() and second.startswith("costs")


def test_caption_columns_put_one_caption_in_a_column_and_one_noise_in_a_row():
    images = random_images(3, 2)  # 3 captions, 2 noises
    figure = plots.caption_columns(images, ["a", "b", "c"], ["z0", "z1"])
    shown = [axes.images[0].get_array() for axes in figure.axes]
    for row in range(2):
        for column in range(3):
            expected = images[column, row].permute(1, 2, 0).numpy()
            assert np.array_equal(shown[row * 3 + column], expected)


def test_loss_curves_show_the_numbers_and_the_pictures_of_their_steps():
    curves = {"train": ([0, 10, 20], [1.0, 0.5, 0.2]), "validation": ([0, 20], [1.0, 0.4])}
    images = random_images(2)
    figure = plots.loss_curves(curves, {0: images[:1], 20: images[1:]}, label="error")
    plot = figure.axes[0]
    assert [list(line.get_ydata()) for line in plot.lines] == [[1.0, 0.5, 0.2], [1.0, 0.4]]
    assert len({line.get_linestyle() for line in plot.lines}) == 2, "told apart without colour"
    assert plot.get_xlabel() == "step" and plot.get_ylabel() == "error"
    assert texts(figure) == ["step 0", "step 20"]
    drawn = pixels_of(figure)
    assert all(holds(drawn, image.permute(1, 2, 0).numpy()) for image in images)


@pytest.mark.parametrize("pictures", [None, {0: random_images(2)}])
def test_numbers_with_many_digits_do_not_push_the_label_out(pictures):
    lefts = []
    for values in ([0, 1], [-912345, 812345], [1e-9, 1.000001e-9]):
        figure = plots.loss_curves({"a": ([1, 2], values)}, pictures, label="logit")
        pixels_of(figure)
        axes = figure.axes[0]
        assert axes.yaxis.get_label().get_window_extent().x0 >= 0
        assert axes.get_window_extent().x1 == pytest.approx(56 + 340, abs=0.01)
        lefts.append(axes.get_window_extent().x0)
        for cell in figure.axes[1:]:
            assert cell.get_window_extent().x1 <= figure.bbox.x1
            assert cell.get_window_extent().width == pytest.approx(16, abs=0.01)
    assert lefts[0] == pytest.approx(56, abs=0.01) and lefts[1] > 60


@pytest.mark.parametrize(
    ("values", "expected"), [((0.013, 0.4), "0.02 0.05 0.1 0.2"), ((1, 130), "1 2 5 10 20 50 100")]
)
def test_a_logarithmic_axis_has_plain_numbers(values, expected):
    axes = plots.loss_curves({"a": ([1, 2], values)}, logarithmic=True).axes[0]
    low, high = axes.get_ylim()
    ticks = [tick for tick in axes.yaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    assert " ".join(tick.label1.get_text() for tick in ticks) == expected
    assert not [place for place in axes.yaxis.get_minorticklocs() if low <= place <= high]


def test_interval_panels_show_each_value_in_its_row():
    accuracy = {"first": (0.5, 0.4, 0.7), "second, better": (0.8, -0.2, 1.1)}
    distance = {"first": (3000, 1000, 5000), "second, better": (100, 90, 120)}
    figure = plots.interval_panels({"right": accuracy, "distance": distance})
    pixels_of(figure)
    for axes, values in zip(figure.axes, (accuracy, distance), strict=True):
        points, _, (bars,) = axes.containers[0]
        for row, (value, low, high) in enumerate(values.values()):
            assert (points.get_xdata()[row], points.get_ydata()[row]) == (value, row)
            ends = sorted(bars.get_segments()[row][:, 0])
            assert ends == pytest.approx([max(low, 0), high])
        assert axes.get_xlim()[0] == 0 and axes.yaxis_inverted()
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(accuracy)
    left = figure.axes[0].get_yticklabels()[1].get_window_extent().x0
    assert left >= 0  # no name is cut off


def test_heat_map_shows_the_matrix_with_its_labels_and_values():
    matrix = torch.tensor([[0.0, 0.5, 1.0], [1.0, 0.25, 0.0]])
    figure = plots.heat_map(matrix, ["x", "y"], ["a", "b", "$c"], "title", number_format=".2f")
    axes = figure.axes[0]
    assert np.array_equal(axes.images[0].get_array(), matrix.numpy())
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x", "y"]
    assert texts(figure) == ["0.00", "0.50", "1.00", "1.00", "0.25", "0.00"]
    colours = [text.get_color() for text in axes.texts]
    assert (colours[0], colours[2]) == ("white", "black")
    pixels_of(figure)


def test_diagram_draws_every_box_and_arrow():
    boxes = {
        "text": (0, 0, "captions", "data"),
        "bert": (1, 0, "BERT\n[B, T, D]", "frozen"),
        "loss": (2, 0.5, "MSE", "loss"),
    }
    figure = plots.diagram(boxes, [("text", "bert", "tokens"), ("bert", "loss")])
    assert texts(figure) == ["captions", "BERT\n[B, T, D]", "MSE", "tokens"]
    assert len(figure.axes[0].patches) == 5
    pixels_of(figure)


def test_colours_of_the_palette_differ_in_lightness_or_hue_for_every_reader():
    colours = np.array([matplotlib.colors.to_rgb(value) for value in plots.PALETTE.values()])
    assert len({tuple(colour) for colour in colours}) == 8
    # Red-green blindness after Vienot, Brettel and Mollon (1999): red and green become one signal.
    linear = colours**2.2
    merged = np.array([0.11238, 0.88762, 0.0])
    seen = np.stack([linear @ merged, linear[:, 2]], axis=1) ** (1 / 2.2)
    distance = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    assert distance[~np.eye(8, dtype=bool)].min() > 0.05


def test_figures_of_a_notebook_are_stored_with_few_colours(monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    monkeypatch.setattr(plots, "get_ipython", lambda: shell)
    plots.store_small_pictures(16)
    figure, axes = plt.subplots(figsize=(3, 2), dpi=80)
    axes.imshow(np.random.default_rng(0).random((40, 60, 3)))
    data, _ = shell.display_formatter.format(figure)
    picture = Image.open(io.BytesIO(data["image/png"]))
    assert picture.size == (240, 160) and len(picture.convert("RGB").getcolors()) <= 16


def test_palette_keeps_a_sky_smooth_and_a_small_thing_in_its_colour():
    picture = np.zeros((256, 64, 3), np.uint8)
    picture[..., 0] = 100  # a sky, from blue to rose
    picture[..., 2] = np.arange(256)[:, None]
    picture[:, :, 1] = 255 - np.arange(256)[:, None] // 2
    picture[3:6, 3:6] = 240, 230, 20  # and a small yellow thing in it
    small = np.asarray(plots.few_colours(Image.fromarray(picture), 64).convert("RGB")).astype(int)
    assert np.abs(small - picture).mean() < 2
    assert np.abs(small[4, 4] - picture[4, 4]).max() < 20


def test_pairs_stand_side_by_side_pixel_for_pixel_under_their_caption():
    drawn, real = random_images(5), 255 - random_images(5)
    captions = [f"caption {k} of a picture that shows a good many things at once" for k in range(5)]
    figure = plots.pair_grid(drawn, real, captions, columns=2, width=64)
    picture = pixels_of(figure)
    for k in range(5):
        for images in (drawn, real):
            part = images[k].permute(1, 2, 0).numpy().repeat(2, axis=0).repeat(2, axis=1)
            assert holds(picture, part)
    shown = " ".join(" ".join(texts(figure)).split())
    assert all(caption in shown for caption in captions)
    assert texts(figure).count("drawn | real") == 3


def test_a_figure_is_shown_with_its_alternative_text_and_closed(monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "display", lambda figure, metadata: shown.append((figure, metadata)))
    figure = plots.image_grid(torch.zeros(2, 3, 8, 8))
    plots.show("two gray squares")
    assert shown == [(figure, {"image/png": {"alt": "two gray squares"}})]
    assert not plt.fignum_exists(figure.number)


def test_a_row_title_of_two_lines_is_as_wide_as_its_longer_line(recwarn):
    two, one = (
        plots.image_grid(torch.zeros(1, 3, 8, 8), row_titles=[title])
        for title in ("a longer line\nand one", "a longer line")
    )
    assert two.get_figwidth() == one.get_figwidth() and not recwarn.list
