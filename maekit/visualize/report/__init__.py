"""A run, or several, as one HTML file that needs neither network nor server."""
