"""The loss around a finished run: how it changes with the texts and with the prompt, from its folder alone.

What is changed is the materialized prompt and the embeddings of the texts, never the parameters of an encoder: a run
keeps the prompt alone, and a ball around an LSTM's weights is another one than a ball around the prompt.
"""
