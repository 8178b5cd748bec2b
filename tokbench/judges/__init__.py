"""Pretrained scorers with an identity: speech recognition, speakers, pitch, opinion scores."""
