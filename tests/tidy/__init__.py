"""Properties of the source itself, checked as tests."""
