"""What people look at: figures, pictures, sentences computed from tables, viewers, and HTML pages."""
