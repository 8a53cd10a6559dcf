"""Networks and the libraries behind them (diffusers, peft, transformers). Sees tensors and arrays, never a scene."""
