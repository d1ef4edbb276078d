"""The papers: u and its derivatives."""
