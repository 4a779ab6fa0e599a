"""Reconstruction methods: from hands in pictures to meshes by a network, by a fit to landmarks, or by both."""
