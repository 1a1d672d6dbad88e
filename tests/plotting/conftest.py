"""A look at the figure before it is a file."""

import pytest

from refnaf.plotting import picture


@pytest.fixture
def page(monkeypatch):
    """The figure of the last picture, to look at what it says."""
    pages = []
    draw = picture.draw_page
    monkeypatch.setattr(picture, "draw_page", lambda *args: pages.append(draw(*args)) or pages[-1])
    return lambda: pages[-1]


@pytest.fixture
def texts(page):
    """All words of the last picture."""
    from matplotlib.text import Text

    return lambda: [t.get_text() for t in page().findobj(Text) if t.get_text() and t.get_visible()]


@pytest.fixture
def panel(page):
    """panel(words): the only panel of the last picture whose title holds the words."""

    def find(words):
        (axes,) = [axes for axes in page().axes if words in axes.get_title(loc="left")]
        return axes

    return find
