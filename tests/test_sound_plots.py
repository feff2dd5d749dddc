"""Figures of sounds show what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import torch

from t2i_course.sound_plots import sound_panels


def test_panels_show_a_wave_and_a_spectrogram_of_each_sound():
    wave, levels = np.sin(np.arange(800)), torch.rand(20, 13)
    sounds = {"true": (wave, levels), "network": (0.5 * wave, levels)}
    figure = sound_panels(sounds, [0.02, 0.05], 0.1, np.linspace(200, 4000, 20))
    above, other, below, _ = figure.axes
    assert [axes.get_title() for axes in (above, other)] == ["true", "network"]
    assert len(above.collections[0].get_segments()) == 2
    assert above.get_ylim() == other.get_ylim()  # loudness can be compared
    assert below.images[0].get_array().shape == (20, 13)
    plt.close(figure)
