"""Looks at a running cluster again and again, and says what happened in between: who used what, who rang whom."""
