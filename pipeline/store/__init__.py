"""The feature store: a vector that was computed once is found again by what it is made of."""
