"""What methods look keys up in: page bounds, codes, hash planes, channels, observation windows."""
