"""Scans of your own through a trained network: notebook 07."""
