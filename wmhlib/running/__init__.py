"""What it takes to run a study: whole files, locks, checkpoints, provenance, digests of code, the commands."""
