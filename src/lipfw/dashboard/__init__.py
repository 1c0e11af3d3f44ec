"""A dashboard for Weights & Biases: `python -m lipfw.dashboard --entity ME` makes a saved view of a project.

`panels` says what it shows, by the names that runs log; `build` makes it an object of the package wandb-workspaces.
Nothing is read from there: run folders are the truth, and `python -m lipfw.report` is made of them alone.
"""
