"""The pretrained, frozen networks: the catalogue, their exports, and the engines that run them."""
