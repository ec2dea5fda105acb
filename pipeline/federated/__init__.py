"""Federated learning: sites share sums over their features, from which one head is computed.

A head in closed form needs only these sums: the head from the sums of all sites equals the head
from all their examples (Fed3R: Fanì, Camoriano, Caputo and Ciccone, "Accelerating heterogeneous
federated learning with closed-form classifiers", ICML 2024).
"""
