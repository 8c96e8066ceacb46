"""Connector: patch features of one picture to vision tokens that a language model reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmfm.errors import ConfigError

Kind = Literal["linear", "mlp", "resampler"]


class Connector(nn.Module):
    """Gives ``num_tokens`` vision tokens a picture, whatever the size of its grid."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """What ``build`` needs besides the widths of its two neighbours."""

        kind: Kind = "mlp"
        """``linear`` or ``mlp`` over an averaged grid, or ``resampler`` (learned queries attend to all patches)."""
        num_tokens: int = 16
        """Vision tokens a picture; a square number unless ``resampler``."""

        def build(self, *, in_features: int, out_features: int) -> Connector:
            """Returns the connector between an encoder and a language model of these widths."""
            return Connector(
                kind=self.kind, num_tokens=self.num_tokens, in_features=in_features, out_features=out_features
            )

    def __init__(self, *, kind: Kind, num_tokens: int, in_features: int, out_features: int) -> None:
        """Makes the layers.

        Raises:
            ConfigError: the kind is unknown, or the tokens do not form a square grid.
        """
        super().__init__()
        self.kind, self.num_tokens = kind, num_tokens
        self.side = round(num_tokens**0.5)
        if kind not in ("linear", "mlp", "resampler"):
            raise ConfigError(
                "model.connector.kind", expected="linear, mlp or resampler", found=repr(kind), fix="choose one of them"
            )
        if kind != "resampler" and self.side**2 != num_tokens:
            raise ConfigError(
                "model.connector.num_tokens",
                expected="a square number (the grid is averaged to a square)",
                found=str(num_tokens),
                fix="choose 1, 4, 9, 16, 25, 36, 49, 64, ... or kind=resampler",
            )
        self.norm = nn.LayerNorm(in_features)
        if kind == "linear":
            self.project: nn.Module = nn.Linear(in_features, out_features)
        elif kind == "mlp":
            self.project = nn.Sequential(
                nn.Linear(in_features, out_features), nn.GELU(), nn.Linear(out_features, out_features)
            )
        else:
            self.project = nn.Linear(in_features, out_features)
            self.queries_VE = nn.Parameter(torch.randn(num_tokens, out_features) * 0.02)
            self.position = nn.Linear(2, out_features)
            self.attention = nn.MultiheadAttention(out_features, num_heads=4, batch_first=True)
            self.out = nn.Sequential(
                nn.LayerNorm(out_features), nn.Linear(out_features, out_features), nn.GELU(),
                nn.Linear(out_features, out_features),
            )  # fmt: skip

    def forward(self, features_NEHW: Tensor) -> Tensor:
        """Returns vision tokens (N, V, E); their order is row by row for the averaged grids."""
        if self.kind != "resampler":
            pooled = F.adaptive_avg_pool2d(features_NEHW, self.side).flatten(2).transpose(1, 2)
            return self.project(self.norm(pooled))
        N, _, H, W = features_NEHW.shape
        rows, columns = torch.meshgrid(
            torch.linspace(-1, 1, H, device=features_NEHW.device),
            torch.linspace(-1, 1, W, device=features_NEHW.device),
            indexing="ij",
        )
        patches_NPE = self.project(self.norm(features_NEHW.flatten(2).transpose(1, 2)))
        keys = patches_NPE + self.position(torch.stack([rows, columns], -1).flatten(0, 1))
        queries = self.queries_VE.expand(N, -1, -1)
        tokens = queries + self.attention(queries, keys, patches_NPE, need_weights=False)[0]
        return tokens + self.out(tokens)
