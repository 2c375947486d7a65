"""What every room may use: messages, devices, files, seeds; imports none of them."""
