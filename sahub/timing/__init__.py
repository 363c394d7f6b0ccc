"""What a decoding step costs on this machine: measured part by part beside dense, and predicted from what it reads."""
