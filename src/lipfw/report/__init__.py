"""Many runs -> one report: `python -m lipfw.report runs/<name>`.

`read` turns run folders into records, `stats` groups them and takes means and deviations over seeds, `table` writes
these for the terminal, as CSV and as Markdown. Each part needs only the one before it, and none imports torch.
"""
