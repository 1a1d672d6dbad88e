"""Errors as the library promises them."""

import pytest


def refusal(call, *args, error=ValueError, **options):
    """The message of an error, which must be one line that ends with a remedy."""
    with pytest.raises(error) as caught:
        call(*args, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert ";" in text, f"no remedy in: {text}"
    return text
