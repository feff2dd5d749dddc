"""Figures of measurements show what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from t2i_course import metric_plots
from t2i_course.evaluation import Estimate


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_ellipses_lie_at_two_standard_deviations_and_are_turned():
    mean, covariance = np.array([1.0, 2.0]), np.diag([4.0, 0.25])
    turned = covariance[::-1, ::-1]
    figure = metric_plots.gaussian_pairs({"wide": ((mean, covariance), (mean, turned))})
    first, second = figure.axes[0].patches
    for ellipse, width, height in ((first, 8, 2), (second, 2, 8)):
        corners = ellipse.get_window_extent().transformed(figure.axes[0].transData.inverted())
        assert (corners.width, corners.height) == pytest.approx((width, height), abs=0.2)
    assert figure.axes[0].get_title() == "wide"


def test_clouds_are_shown_beside_the_real_one_in_its_widest_directions():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(400, 5)) * [1, 9, 1, 5, 1]
    figure = metric_plots.feature_clouds(real, {"moved": real + 100, "same": real})
    assert len(figure.axes) == 2
    points = figure.axes[0].collections[0].get_offsets()
    assert len(points) == 300
    assert np.asarray(points).std(axis=0) == pytest.approx([9, 5], rel=0.15)


def test_each_measure_has_a_row_and_each_fault_a_column():
    def estimate(value):
        return Estimate(value, (0.9 * value, 1.1 * value), 10)

    by_strength = {0: {"FD": estimate(50.0), "recall": estimate(0.8)}, 2: {"FD": estimate(500.0)}}
    figure = metric_plots.fault_panels(
        {"blur": by_strength, "noise": by_strength}, ["FD", "recall"]
    )
    assert len(figure.axes) == 4
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["blur", "noise", "", ""]
    assert figure.axes[0].get_yscale() == "log" and figure.axes[2].get_ylim() == (-0.05, 1.08)
    assert figure.axes[0].lines[0].get_ydata().tolist() == [50.0, 500.0]
    assert len(figure.axes[2].lines[0].get_ydata()) == 1  # what was not measured is left out


def test_values_are_drawn_at_their_number_of_samples():
    figure = metric_plots.values_by_size({"FD": {100: [5.0, 7.0], 200: [3.0]}})
    dots, mean, *_ = figure.axes[0].lines
    assert dots.get_ydata().tolist() == [5.0, 7.0] and float(mean.get_ydata()[0]) == 6.0


def test_shares_stand_in_their_rows_with_their_intervals():
    estimates = [Estimate(0.5, (0.4, 0.6), 10), Estimate(1.0, (0.9, 1.0), 10)]
    figure = metric_plots.shares(["color", "shape"], {"real": estimates}, "share right")
    (axes,) = figure.axes
    assert axes.lines[0].get_xdata().tolist() == [0.5, 1.0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["color", "shape"]
    assert axes.get_xlabel() == "share right"
    assert min(t.get_fontsize() for t in [axes.xaxis.label, *axes.get_yticklabels()]) >= 9
