"""A logistic head trained across sites with Flower (docs/flower.md); no example leaves a site.

`prepare.py` runs with Headstart's packages. All else runs with Flower's, which are others
(`requirements/flower.lock`), and imports of `pipeline/` only what needs numpy and safetensors.
"""
