"""One file per sparse-attention method; `builder` finds them by name, nothing imports them."""
