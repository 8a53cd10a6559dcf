"""Tiny random networks of transformers' classes, in folders as from the hub."""

import json

import torch
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    EomtConfig,
    EomtForUniversalSegmentation,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    ResNetConfig,
    RfDetrConfig,
    RfDetrForInstanceSegmentation,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrResNetConfig,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2Model,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
    SwinConfig,
)  # fmt: skip
from transformers.models.rf_detr.configuration_rf_detr import RfDetrDinov2Config

from realfill.models.quiet import quiet

NAMES = {0: "person", 1: "backpack", 2: "dog"}
CLASSES = {"id2label": NAMES, "label2id": {name: label for label, name in NAMES.items()}}


def _save(network, folder, values):
    with quiet():
        network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return str(folder)


def build_mask2former(folder):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        swin = SwinConfig(
            image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )  # fmt: skip
        config = Mask2FormerConfig(
            backbone_config=swin, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
            dim_feedforward=16, encoder_layers=1, decoder_layers=2, num_attention_heads=2, num_queries=6, init_std=0.5,
            **CLASSES,
        )  # fmt: skip
        network = Mask2FormerForUniversalSegmentation(config)
    return _save(network, folder, {"size": {"shortest_edge": 64, "longest_edge": 96}})


def build_eomt(folder):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = EomtConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=16, num_blocks=1,
            num_upscale_blocks=1, num_queries=5, num_register_tokens=0, initializer_range=0.5, **CLASSES,
        )  # fmt: skip
        network = EomtForUniversalSegmentation(config)
    return _save(network, folder, {"size": {"shortest_edge": 64, "longest_edge": 64}, "do_pad": True})


def build_detr(folder):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        resnet = ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], out_features=["stage4"]
        )
        config = DetrConfig(
            use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=resnet, d_model=16,
            encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
            encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=5, **CLASSES,
        )  # fmt: skip
        network = DetrForObjectDetection(config)
    return _save(network, folder, {"size": {"shortest_edge": 64, "longest_edge": 96}})


def build_rt_detr(folder):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        resnet = RTDetrResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], layer_type="basic",
            out_features=["stage2", "stage3", "stage4"],
        )  # fmt: skip
        config = RTDetrConfig(
            backbone_config=resnet, encoder_hidden_dim=16, encoder_in_channels=[8, 16, 16], encoder_layers=1,
            encoder_ffn_dim=16, encoder_attention_heads=2, d_model=16, num_queries=6, decoder_in_channels=[16, 16, 16],
            decoder_ffn_dim=16, decoder_layers=1, decoder_attention_heads=2, num_denoising=0, initializer_range=0.5,
            initializer_bias_prior_prob=0.5, **CLASSES,
        )  # fmt: skip
        network = RTDetrForObjectDetection(config)
    return _save(network, folder, {"size": {"height": 64, "width": 64}, "do_normalize": False})


def build_rf_detr(folder):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vision = RfDetrDinov2Config(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=16, num_windows=1,
            out_features=["stage1", "stage2"],
        )  # fmt: skip
        config = RfDetrConfig(
            backbone_config=vision, d_model=16, num_queries=6, decoder_layers=1, decoder_ffn_dim=16, group_detr=1,
            decoder_self_attention_heads=2, decoder_cross_attention_heads=2, c2f_num_blocks=1, **CLASSES,
        )  # fmt: skip
        network = RfDetrForInstanceSegmentation(config)
        for parameter in network.parameters():  # as built, all queries answer nearly alike
            torch.nn.init.normal_(parameter, std=0.5)
    return _save(network, folder, {"size": {"height": 64, "width": 64}})


def build_sam2(folder):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hiera = Sam2HieraDetConfig(
            hidden_size=8, image_size=[128, 128], blocks_per_stage=[1, 2, 2, 1], embed_dim_per_stage=[8, 16, 32, 64],
            num_attention_heads_per_stage=[1, 1, 1, 1], global_attention_blocks=[4],
            window_size_per_stage=[4, 4, 4, 4], window_positional_embedding_background_size=[4, 4],
        )  # fmt: skip
        vision = Sam2VisionConfig(
            backbone_config=hiera, backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=32,
            backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
        )  # fmt: skip
        config = Sam2Config(
            vision_config=vision,
            prompt_encoder_config=Sam2PromptEncoderConfig(hidden_size=32, image_size=128),
            mask_decoder_config=Sam2MaskDecoderConfig(
                hidden_size=32, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16
            ),
        )
        network = Sam2Model(config)
    return _save(network, folder, {"size": {"height": 128, "width": 128}})
