"""What a grid of runs, or the paper's whole study, will take, before anything is started."""
