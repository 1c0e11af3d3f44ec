"""Many runs -> one report: `python -m lipfw.report runs/<name>`.

`read` turns run folders into records, `stats` groups them and takes means and deviations over seeds, `compare` puts
groups beside each other, and `screen`, `sheet` and `markdown` write these for the terminal, as CSV and as Markdown.

Of studies, `manifest` reads what was planned and `study` the series that it compares, `pairing` takes the differences
between two of them, `claims` judges these, `published` puts published numbers beside ours, `account` tells all that.
`figure` draws both, and `page` is a page of it all. Each part needs only those before it, and none imports torch.
"""
