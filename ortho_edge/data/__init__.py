"""Speech data: corpora, audio, features, augmentation and batches."""
