"""DexYCB: reader, index and MANO hands."""
