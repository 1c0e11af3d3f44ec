"""How numbers are said to people."""


def spoken(seconds: float) -> str:
    """Return a duration in words.

    >>> spoken(8100), spoken(3.2)
    ('2 h 15 min', '3 s')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
