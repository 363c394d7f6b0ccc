"""Several questions of one context at once: what the model holds of them, and how they are decoded as one batch."""
