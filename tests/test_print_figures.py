import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from t2i_course import print_figures
from t2i_course.print_figures import COLUMN_WIDTH, TEXT_WIDTH, Cost

COSTS = [Cost("baseline", 720.0, 1500, "2-core", (0.0, 0.0, 0.002)),
         Cost("gan", 53000.0, 9000, "2-core", (0.9, 0.89, 0.92))]  # fmt: skip


@pytest.fixture(scope="module")
def pictures():
    return print_figures.draw_fresh(["baseline", "gan"], captions=12, seeds=(0, 1))


def test_generators_draw_the_same_fresh_captions_and_each_picture_is_checked(pictures):
    assert len(pictures.captions) == 12 and pictures.real.shape == (12, 3, 64, 64)
    assert pictures.drawn["gan"].shape == (2, 12, 3, 64, 64)
    assert pictures.right["gan"].shape == (2, 12) and pictures.right["gan"].dtype == bool
    assert pictures.right["gan"].mean() > 0.4 > 0.1 > pictures.right["baseline"].mean()
    again = print_figures.draw_fresh(["gan"], captions=12, seeds=(0, 1))
    assert again.captions == pictures.captions
    assert np.array_equal(again.drawn["gan"], pictures.drawn["gan"])


@pytest.mark.parametrize("width", [COLUMN_WIDTH, TEXT_WIDTH])
def test_a_grid_has_the_width_of_paper_and_text_of_eight_points(pictures, width):
    figure = print_figures.sample_grid(pictures, width)
    assert figure.get_size_inches()[0] == pytest.approx(width)
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 3 * round((width - 0.5) / 0.95)
    assert {t.get_fontsize() for a in shown for t in (a.title, a.yaxis.label)} == {8}
    drawn = figure.canvas.get_renderer()
    edges = [a.title.get_window_extent(drawn) for a in shown if a.get_title()]
    pairs = zip(edges, edges[1:], strict=False)
    assert all(left.x1 < right.x0 for left, right in pairs), "captions run into each other"
    assert min(e.x0 for e in edges) >= 0 and max(e.x1 for e in edges) <= figure.bbox.width
    plt.close(figure)


def test_files_have_their_fonts_and_dots(tmp_path):
    pdf, png = print_figures.save(print_figures.cost_figure(COSTS), tmp_path / "cost")
    content = pdf.read_bytes()
    assert b"/FontFile2" in content and b"/Type3" not in content and b"CreationDate" not in content
    picture = Image.open(png)
    assert round(picture.info["dpi"][0]) == 300
    assert picture.width == round(COLUMN_WIDTH * 300)
    again, _ = print_figures.save(print_figures.cost_figure(COSTS), tmp_path / "again")
    assert again.read_bytes() == content, "the same figure gives the same bytes"


def test_things_are_told_apart_without_colour():
    figure = print_figures.cost_figure(COSTS)
    (axes,) = figure.axes
    markers = {line.get_marker() for line in axes.lines} - {"|", "_", "None"}
    assert len(markers) == len(COSTS)
    assert [text.get_text() for text in axes.texts] == ["baseline", "gan"]
    plt.close(figure)
    for colour in print_figures.COLOURS:  # dark enough on white in grayscale
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        assert 0.299 * red + 0.587 * green + 0.114 * blue < 180


def test_shipped_generators_of_scenes_are_found():
    names = print_figures.scene_generators()
    assert {"baseline", "gan", "style"} <= set(names)
    assert not {"gan-discriminator", "caption-matcher", "video-to-audio"} & set(names)
