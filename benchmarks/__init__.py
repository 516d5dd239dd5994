"""Benchmarks: what tracking, a scrape and an import cost, each as a ratio measured within one run."""
