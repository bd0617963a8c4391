"""Segmentation of your own scans with a trained network: notebook 07."""
