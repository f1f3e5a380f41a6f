"""What the assistant can do besides talking: plugins and the device's own tools, behind one toolbox."""
