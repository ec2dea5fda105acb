"""Sites that may not share examples: sums that leave a site, and the head that they add up to.

A head in closed form needs the sums alone: the head of all sites' sums is that of all their
examples (Fanì, Camoriano, Caputo and Ciccone, "Accelerating heterogeneous federated learning with
closed-form classifiers", ICML 2024, there Fed3R).
"""
