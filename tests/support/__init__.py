"""What tests share: laws of samples, trees on disk, MANO files, processes, a browser."""
