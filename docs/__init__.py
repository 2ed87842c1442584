"""The documentation: pages for Sphinx, and the parts of them that come from the catalogue."""
