"""Finding heads: which observations a study shows, and on which side, straight from patch features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

FRONTAL, LATERAL = 0, 1
SEVERITIES = 3
"""Grades of a severity: small or mild, moderate, large or severe."""


@dataclass(frozen=True, kw_only=True)
class HeadLogits:
    """Logits of one batch."""

    present_BO: Tensor
    sides_BO2: Tensor
    """(patient's left, patient's right)."""
    lateral_N: Tensor
    """For each picture that is present, in order: that it is a lateral view."""
    severity_BOG: Tensor
    """Logits of the grades of severity, read from volumes; of no meaning for pictures."""
    sided_B: Tensor
    """bool: the study is a volume or has a frontal picture; without either nothing is known of sides."""
    views_N: Tensor
    """int64 view used for each picture: as stated, else as read from the picture."""
    codes_BK: Tensor
    """Logits of the codes of the source. Of them, modality and part of the body alone are drafted, of slices."""
    codes_NK: Tensor
    """The same for each picture that is present, in order, as if its study had no other."""


class FindingHeads(nn.Module):
    """Linear heads over pooled features: the mean of the frontal and of the lateral pictures, side by side.

    The side of a finding is read from the halves of the frontal pictures by one set of weights for both halves, so
    that a mirrored picture mirrors the side. A frontal radiograph shows the patient's left on the picture's right.
    The codes are learned for what they teach the features; what slices are of is drafted from them.
    """

    def __init__(self, *, in_features: int, num_observations: int, num_codes: int, dropout: float) -> None:
        super().__init__()
        self.missing_2E = nn.Parameter(torch.zeros(2, in_features))
        """Stands for a view that the study lacks."""
        self.dropout = nn.Dropout(dropout)
        self.present = nn.Linear(2 * in_features, num_observations)
        self.side = nn.Linear(2 * in_features, num_observations)
        self.lateral = nn.Linear(in_features, 1)
        # Where no view is taught, as of slices, all pictures stay frontal instead of being parted by chance.
        nn.init.zeros_(self.lateral.weight)
        nn.init.zeros_(self.lateral.bias)
        self.codes = nn.Linear(2 * in_features, num_codes) if num_codes else None

    def forward(self, features_NEHW: Tensor, study_N: Tensor, views_N: Tensor, num_studies: int) -> HeadLogits:
        """Returns logits for ``num_studies`` studies.

        Args:
            features_NEHW: patch features of all pictures of the batch, one after the other.
            study_N: the row of the batch that each picture belongs to.
            views_N: 0 frontal, 1 lateral, -1 not stated.
            num_studies: rows of the batch.
        """
        features_NEHW = features_NEHW.float()
        pooled_NE = features_NEHW.mean((2, 3))
        lateral_N = self.lateral(pooled_NE.detach()).squeeze(-1)
        views_N = torch.where(views_N < 0, (lateral_N > 0).long(), views_N)
        pooled_BE = self._by_view(pooled_NE, study_N, views_N, num_studies)
        half = features_NEHW.shape[3] // 2
        frontal = views_N == FRONTAL
        patient_right_BE, has_frontal_B = self._mean(
            features_NEHW[..., :half].mean((2, 3)), study_N, frontal, num_studies
        )
        patient_left_BE, _ = self._mean(features_NEHW[..., -half:].mean((2, 3)), study_N, frontal, num_studies)
        sides = [
            self.side(self.dropout(torch.cat([own, other], dim=1)))
            for own, other in ((patient_left_BE, patient_right_BE), (patient_right_BE, patient_left_BE))
        ]
        alone_NE = self._by_view(pooled_NE, torch.arange(len(study_N), device=study_N.device), views_N, len(study_N))
        dropped_BE = self.dropout(pooled_BE)
        return HeadLogits(
            present_BO=self.present(dropped_BE),
            sides_BO2=torch.stack(sides, dim=-1),
            lateral_N=lateral_N,
            severity_BOG=sides[0].new_zeros(*sides[0].shape, SEVERITIES),
            sided_B=has_frontal_B,
            views_N=views_N,
            codes_BK=dropped_BE[:, :0] if self.codes is None else self.codes(dropped_BE),
            codes_NK=alone_NE[:, :0] if self.codes is None else self.codes(self.dropout(alone_NE)),
        )

    def _by_view(self, pooled_NE: Tensor, study_N: Tensor, views_N: Tensor, num_studies: int) -> Tensor:
        """Returns (num_studies, 2 E): the means of the frontal and of the lateral pictures, or what stands for them."""
        by_view = [self._mean(pooled_NE, study_N, views_N == view, num_studies) for view in (FRONTAL, LATERAL)]
        return torch.cat(
            [torch.where(known[:, None], mean, self.missing_2E[v]) for v, (mean, known) in enumerate(by_view)], dim=1
        )

    @staticmethod
    def _mean(values_NE: Tensor, study_N: Tensor, chosen_N: Tensor, num_studies: int) -> tuple[Tensor, Tensor]:
        total = values_NE.new_zeros(num_studies, values_NE.shape[1])
        total = total.index_add(0, study_N, values_NE * chosen_N[:, None])
        count = values_NE.new_zeros(num_studies).index_add(0, study_N, chosen_N.to(values_NE.dtype))
        return total / count.clamp(min=1)[:, None], count > 0
