import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from t2i_course import charts

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_lines_have_their_numbers_labels_and_levels():
    figure = charts.lines({"a": ([1, 2], [3, 4]), "b": ([1, 2], [5, 6])}, ("step", "loss"),
                          {"chance": 4.5}, "y")  # fmt: skip
    (axes,) = figure.axes
    assert [list(line.get_ydata()) for line in axes.lines[:2]] == [[3, 4], [5, 6]]
    assert [text.get_text() for text in axes.get_legend().texts] == ["a", "b", "chance"]
    assert axes.get_yscale() == "log" and axes.get_xscale() == "linear"


def test_bars_stand_in_groups_from_the_top_with_their_values():
    figure = charts.bars({"x": {"one": 0.5, "two": 1.0}, "y": {"one": 0.25, "two": 0}}, "share",
                         ".0%")  # fmt: skip
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [0.5, 1.0, 0.25, 0]
    assert [text.get_text() for text in axes.texts] == ["50%", "100%", "25%", "0%"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "two"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    labels = [axes.xaxis.label, *axes.texts, *axes.get_yticklabels()]
    assert {label.get_fontsize() for label in labels} == {9}
    overlap = [bar.get_y() for bar in axes.patches[:1]][0] + axes.patches[0].get_height()
    assert overlap <= axes.patches[2].get_y()


def test_matrices_write_their_values_in_ink_that_is_seen():
    figure = charts.matrices({"first": np.eye(2), "second": np.zeros((2, 3))}, ["p", "q"], ".1f")
    first, second = figure.axes
    assert [text.get_text() for text in first.texts] == ["1.0", "0.0", "0.0", "1.0"]
    assert [text.get_color() for text in first.texts[:2]] == ["black", "white"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["p", "q"]
    assert not second.get_yticks().size
    assert not charts.matrices({"plain": np.eye(2)}).axes[0].texts


def test_every_group_of_points_is_drawn_in_its_panel_with_its_name():
    points = torch.rand(5, 2)
    figure = charts.scatter_panels(
        {"by side": {"left": points, "right": points + 1}, "all": {"all": points.numpy()}}
    )
    first, second = figure.axes
    assert [len(axes.collections) for axes in (first, second)] == [2, 1]
    assert np.allclose(first.collections[1].get_offsets(), points + 1)
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["left", "right"]
    assert second.get_title() == "all"
