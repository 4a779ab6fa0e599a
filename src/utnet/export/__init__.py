"""A network as one file: written for ONNX Runtime, OpenVINO or torch.export, and run."""
