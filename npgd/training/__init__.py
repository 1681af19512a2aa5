"""Train a generator, train a projector; both resumable. See :mod:`npgd.training.loop`."""
