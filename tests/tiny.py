"""Settings that the smallest runs of all tests share: written ``name=value``, with spaces between them."""

MODEL = """threads=1 model.device=cpu model.precision=float32 model.layers=1 model.hidden=32 model.heads=2"""
FRAMES = """data.height=16 data.width=16 data.lpips=none data.reward.lpips=0 data.tokenizer.groups=8
data.tokenizer.latent=8"""
"""Of video; LPIPS cannot look at frames so small."""

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "pad_token_id": 0,
}
"""Of a transformers model with fewer keys than queries, but for its vocabulary."""
