"""What is known of a model beside running it: its layers, weights, files, rotary frequencies and chat template."""
