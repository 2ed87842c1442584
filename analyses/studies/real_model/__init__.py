"""A real pretrained model: what an audit foretells before training, and what training then does."""
