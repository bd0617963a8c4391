"""Figures, pictures, sentences computed from tables, viewers, and HTML pages."""
