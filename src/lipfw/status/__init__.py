"""Where the runs of a grid stand: python -m lipfw.status. No torch here: it starts in a moment, and looks often."""
