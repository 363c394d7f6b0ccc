"""How the packaged model was made: its tokenizer, its first weights, its data and its training loop."""
