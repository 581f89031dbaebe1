# SPDX-License-Identifier: BSD-3-Clause
"""Medians, their intervals, and ratios of samples that were taken in pairs. Pure functions; repeatable."""
import random

RESAMPLES = 2000
CONFIDENCE = 0.95


def percentile(samples, fraction):
    """Between the two nearest samples; `fraction` is 0..1. There must be a sample."""
    ordered = sorted(samples)
    at = fraction * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (at - below)


def median(samples):
    return percentile(samples, 0.5)


def bootstrap_interval(samples, resamples=RESAMPLES, seed=1):
    """(low, high): where the median of such samples lies with 95 % confidence, by the percentile bootstrap."""
    draw = random.Random(seed)
    medians = [median(draw.choices(samples, k=len(samples))) for _ in range(resamples)]
    tail = (1 - CONFIDENCE) / 2
    return percentile(medians, tail), percentile(medians, 1 - tail)


def paired_ratios(ours, peers, smaller_is_better):
    """One ratio a pair, above 1 where ours is better. Pairs in which either is missing (None) are left out."""
    pairs = [(our, peer) for our, peer in zip(ours, peers) if our and peer]
    return [peer / our if smaller_is_better else our / peer for our, peer in pairs]
