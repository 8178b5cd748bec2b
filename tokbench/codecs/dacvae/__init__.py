"""DAC-VAE, the continuous autoencoder of learnable-speech: DAC's convolutions around a Gaussian bottleneck.

`checkpoint.load_dacvae` gives a `model.DacVae`; the parts are `config` and `nets`.
"""
