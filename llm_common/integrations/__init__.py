"""Integrations with frameworks, one file for each; a framework is imported by its own integration alone."""
