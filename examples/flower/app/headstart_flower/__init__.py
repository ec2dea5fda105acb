"""A logistic head trained across sites: Flower's ClientApp and ServerApp, with FedAvg."""
