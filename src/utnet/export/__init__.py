"""Export of networks to ONNX, OpenVINO or torch.export, and running exported files."""
