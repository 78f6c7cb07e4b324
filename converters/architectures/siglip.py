"""SigLIP (Zhai et al. 2023): CLIP with a sigmoid for each pair, pooled by attention, and texts of fixed length."""

from converters.architectures import clip
from converters.architectures._onnx import IMAGE_DEFAULTS, IMAGE_SIZES
from converters.encoder import Encoder, Head, Towers

ONNX = Towers(
    text=Encoder(
        sizes=clip.TEXT_SIZES,
        tensors=clip.WORDS | clip.LAYER | {"final_norm": "final_layer_norm", "projection": "head"},
        defaults={
            "vocab_size": 32000, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
            "num_attention_heads": 12, "max_position_embeddings": 64, "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": 1e-6,
        },
        prefixes=("text_model.",),
        section="text_config",
        norm="pre",
        masked=False,
        pooling="last",
    ),
    vision=Encoder(
        sizes=IMAGE_SIZES,
        tensors=clip.LAYER
        | {
            "patches": "embeddings.patch_embedding",
            "positions": "embeddings.position_embedding",
            "final_norm": "post_layernorm",
            "probe": "head.probe",
            "probe_in": "head.attention.in_proj",
            "probe_output": "head.attention.out_proj",
            "probe_norm": "head.layernorm",
            "probe_up": "head.mlp.fc1",
            "probe_down": "head.mlp.fc2",
        },
        defaults=IMAGE_DEFAULTS | {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6},
        prefixes=("vision_model.", ""),
        section="vision_config",
        norm="pre",
        pooling="probe",
        heads={"image-classify": Head("all", ("classifier",))},
    ),
    scores="sigmoid",
    pad_to_window=True,
)  # fmt: skip
