"""What it takes to run a study: whole files, locks, checkpoints, provenance, parameters of notebooks, digests of code, the commands."""
