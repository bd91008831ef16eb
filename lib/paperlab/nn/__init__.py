"""Layers, optimisers and the click-model base that several families share."""
