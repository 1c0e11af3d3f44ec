"""Many runs: which there are, where each stands, and who does them."""
