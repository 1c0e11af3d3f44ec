"""What tickets are like, and what two of them share: `python -m lipfw.tickets PATH [OTHER ...]`.

`rows` reads tickets and measures them, `table` writes what it found for the terminal and as CSV.
"""
